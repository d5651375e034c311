// Both sides of scenarios.capnp in C++, the reference implementation.
//
// `peer` is the server: it prints its port, and ends with its standard input. What its objects do is
// written in service.py. `peer PORT SCENARIO` is a client: it prints what it sees, which is written
// in play.py. A line that begins with `!` asks for the link to be held or let go, and is answered.

#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <string>
#include <vector>
#include "scenarios.capnp.h"

namespace {

using namespace scenarios;

[[noreturn]] void fail(const char* reason) {
  kj::throwFatalException(KJ_EXCEPTION(FAILED, reason));
  KJ_UNREACHABLE;
}

std::string shown(double number) {
  char text[32];
  snprintf(text, sizeof text, "%g", number);
  return text;
}

// --- the state of a world ---

struct Content {
  std::string name;
  std::string bytes;
  bool isTree = false;
  // Of a tree.
  std::vector<std::pair<std::string, kj::Own<struct Entry>>> entries;
  struct Entry* at(const std::string& name);
  void set(const std::string& name, kj::Own<struct Entry> entry);
};

struct Entry {
  kj::Maybe<Node::Client> foreign;
  Content content;
};

Entry* Content::at(const std::string& wanted) {
  for (auto& each: entries) {
    if (each.first == wanted) return each.second.get();
  }
  return nullptr;
}

void Content::set(const std::string& wanted, kj::Own<Entry> entry) {
  for (auto& each: entries) {
    if (each.first == wanted) {
      each.second = kj::mv(entry);
      return;
    }
  }
  entries.emplace_back(wanted, kj::mv(entry));
}

struct State: kj::Refcounted {
  explicit State(kj::Timer& timer): State(timer, kj::newPromiseAndFulfiller<void>()) {}
  State(kj::Timer& timer, kj::PromiseFulfillerPair<void> pair)
      : timer(timer), gate(pair.promise.fork()), opening(kj::mv(pair.fulfiller)) {}

  void note(const std::string& name, const std::string& text) { lines.push_back(name + ": " + text); }

  kj::Timer& timer;
  std::vector<std::string> lines;
  uint32_t alive = 0;
  kj::ForkedPromise<void> gate;
  kj::Own<kj::PromiseFulfiller<void>> opening;
  std::map<std::string, kj::Own<Entry>> trees;
};

class Counted {
public:
  explicit Counted(State& state): state(kj::addRef(state)) { ++state.alive; }
  ~Counted() noexcept(false) { --state->alive; }

protected:
  kj::Own<State> state;
};

// --- references ---

class CellImpl final: public Cell::Server, Counted {
public:
  CellImpl(State& state, std::string name): Counted(state), name(name) {}

  kj::Promise<void> add(AddContext context) override {
    auto number = context.getParams().getNumber();
    if (number != next) {
      state->note(name, "add " + std::to_string(number) + " in the place of " + std::to_string(next));
    }
    ++next;
    total += number;
    context.getResults().setTotal(total);
    return kj::READY_NOW;
  }

private:
  std::string name;
  uint32_t next = 0, total = 0;
};

class GiverImpl final: public Giver::Server {
public:
  GiverImpl(kj::Promise<void> mayGive, kj::Maybe<Cell::Client> cell)
      : mayGive(mayGive.fork()), cell(kj::mv(cell)) {}

  kj::Promise<void> give(GiveContext context) override {
    return mayGive.addBranch().then([this, context]() mutable {
      KJ_IF_MAYBE(known, cell) context.getResults().setCell(*known);
      else fail("[nothing to give]");
    });
  }

private:
  kj::ForkedPromise<void> mayGive;
  kj::Maybe<Cell::Client> cell;
};

// --- a calculator ---

using Values = std::vector<double>;

struct Expression {
  explicit Expression(Calculator::Expression::Reader reader) {
    switch (reader.which()) {
      case Calculator::Expression::LITERAL: literal = reader.getLiteral(); break;
      case Calculator::Expression::VALUE: value = reader.getValue(); break;
      case Calculator::Expression::PARAMETER: parameter = reader.getParameter(); break;
      case Calculator::Expression::CALL:
        function = reader.getCall().getFunction();
        for (auto each: reader.getCall().getParams()) {
          params.push_back(kj::heap<Expression>(each));
        }
    }
  }

  kj::Promise<double> evaluate(const Values& values) {
    KJ_IF_MAYBE(number, literal) return *number;
    KJ_IF_MAYBE(index, parameter) return values.at(*index);
    KJ_IF_MAYBE(client, value) {
      return client->readRequest().send().then([](auto results) { return results.getNumber(); });
    }
    auto numbers = kj::heap<Values>();
    auto& known = *numbers;
    return evaluateFrom(0, values, known).then([this, &known]() {
      auto request = KJ_ASSERT_NONNULL(function).callRequest();
      auto list = request.initParams(known.size());
      for (size_t i = 0; i < known.size(); ++i) list.set(i, known[i]);
      return request.send().then([](auto results) { return results.getNumber(); });
    }).attach(kj::mv(numbers));
  }

  kj::Promise<void> evaluateFrom(size_t at, const Values& values, Values& known) {
    if (at == params.size()) return kj::READY_NOW;
    return params[at]->evaluate(values).then([this, at, &values, &known](double number) {
      known.push_back(number);
      return evaluateFrom(at + 1, values, known);
    });
  }

  kj::Maybe<double> literal;
  kj::Maybe<uint32_t> parameter;
  kj::Maybe<Calculator::Value::Client> value;
  kj::Maybe<Calculator::Function::Client> function;
  std::vector<kj::Own<Expression>> params;
};

class ValueImpl final: public Calculator::Value::Server {
public:
  explicit ValueImpl(double number): number(number) {}

  kj::Promise<void> read(ReadContext context) override {
    context.getResults().setNumber(number);
    return kj::READY_NOW;
  }

private:
  double number;
};

class OperatorImpl final: public Calculator::Function::Server {
public:
  OperatorImpl(State& state, Calculator::Operator operation)
      : state(kj::addRef(state)), operation(operation) {}

  kj::Promise<void> call(CallContext context) override {
    static const char* names[] = {"add", "subtract", "multiply", "divide"};
    auto params = context.getParams().getParams();
    double first = params[0], second = params[1], number = 0;
    state->lines.push_back(
        names[(int)operation] + (" " + shown(first)) + " " + shown(second));
    switch (operation) {
      case Calculator::Operator::ADD: number = first + second; break;
      case Calculator::Operator::SUBTRACT: number = first - second; break;
      case Calculator::Operator::MULTIPLY: number = first * second; break;
      case Calculator::Operator::DIVIDE:
        if (second == 0) fail("[division by zero]");
        number = first / second;
    }
    context.getResults().setNumber(number);
    return kj::READY_NOW;
  }

private:
  kj::Own<State> state;
  Calculator::Operator operation;
};

class FunctionImpl final: public Calculator::Function::Server {
public:
  FunctionImpl(State& state, uint32_t count, Calculator::Expression::Reader body)
      : state(kj::addRef(state)), count(count), body(body) {}

  kj::Promise<void> call(CallContext context) override {
    auto values = kj::heap<Values>();
    std::string line = "function";
    for (double each: context.getParams().getParams()) {
      values->push_back(each);
      line += " " + shown(each);
    }
    state->lines.push_back(line);
    if (values->size() != count) fail("[wrong number of params]");
    auto& known = *values;
    return body.evaluate(known).then([context](double number) mutable {
      context.getResults().setNumber(number);
    }).attach(kj::mv(values), thisCap());
  }

private:
  kj::Own<State> state;
  uint32_t count;
  Expression body;
};

class CalculatorImpl final: public Calculator::Server {
public:
  explicit CalculatorImpl(State& state): state(kj::addRef(state)) {}

  kj::Promise<void> evaluate(EvaluateContext context) override {
    auto expression = kj::heap<Expression>(context.getParams().getExpression());
    auto values = kj::heap<Values>();
    auto result = expression->evaluate(*values);
    return result.then([context](double number) mutable {
      context.getResults().setValue(kj::heap<ValueImpl>(number));
    }).attach(kj::mv(expression), kj::mv(values));
  }

  kj::Promise<void> define(DefineContext context) override {
    auto params = context.getParams();
    context.getResults().setFunction(
        kj::heap<FunctionImpl>(*state, params.getParams(), params.getBody()));
    return kj::READY_NOW;
  }

  kj::Promise<void> operation(OperationContext context) override {
    context.getResults().setFunction(
        kj::heap<OperatorImpl>(*state, context.getParams().getOperator()));
    return kj::READY_NOW;
  }

private:
  kj::Own<State> state;
};

// --- a file system ---

struct Login: kj::Refcounted {
  std::string user;
  bool isOpen = true;
  void check() { if (!isOpen) fail("[logged out]"); }
};

class NodeImpl: public virtual Node::Server, protected Counted {
public:
  NodeImpl(State& state, Login& login, Content& content)
      : Counted(state), login(kj::addRef(login)), content(content) {}

  kj::Promise<void> stat(StatContext context) override {
    login->check();
    context.getResults().setName(content.name);
    context.getResults().setBytes(content.isTree ? content.entries.size() : content.bytes.size());
    return kj::READY_NOW;
  }

protected:
  kj::Own<Login> login;
  Content& content;
};

class FileImpl final: public File::Server, public NodeImpl {
public:
  using NodeImpl::NodeImpl;

  kj::Promise<void> read(ReadContext context) override {
    login->check();
    auto params = context.getParams();
    auto part = content.bytes.substr(params.getAt(), params.getBytes());
    context.getResults().setData(
        kj::arrayPtr(reinterpret_cast<const kj::byte*>(part.data()), part.size()));
    return kj::READY_NOW;
  }

  kj::Promise<void> write(WriteContext context) override {
    login->check();
    auto params = context.getParams();
    auto data = params.getData();
    state->note(content.name, "write " + std::to_string(data.size()) + " at "
                                  + std::to_string(params.getAt()));
    content.bytes.resize(params.getAt());
    content.bytes.append(reinterpret_cast<const char*>(data.begin()), data.size());
    return kj::READY_NOW;
  }
};

class DirectoryImpl final: public Directory::Server, public NodeImpl {
public:
  using NodeImpl::NodeImpl;

  kj::Promise<void> list(ListContext context) override {
    login->check();
    auto results = context.getResults();
    auto entries = results.initEntries(content.entries.size());
    auto nodes = results.initNodes(content.entries.size());
    for (size_t i = 0; i < content.entries.size(); ++i) {
      auto node = open(*content.entries[i].second);
      entries[i].setName(content.entries[i].first);
      entries[i].setNode(node);
      nodes.set(i, node);
    }
    return kj::READY_NOW;
  }

  kj::Promise<void> find(FindContext context) override {
    login->check();
    auto results = context.getResults();
    if (auto entry = content.at(context.getParams().getName())) {
      auto node = open(*entry);
      results.setNode(node);
      if (entry->foreign != nullptr) {
      } else if (entry->content.isTree) {
        results.setDirectory(node.castAs<Directory>());
      } else {
        results.setFile(node.castAs<File>());
      }
    }
    return kj::READY_NOW;
  }

  kj::Promise<void> create(CreateContext context) override {
    context.getResults().setFile(made(context.getParams().getName(), false).castAs<File>());
    return kj::READY_NOW;
  }

  kj::Promise<void> make(MakeContext context) override {
    auto directory = made(context.getParams().getName(), true).castAs<Directory>();
    context.getResults().setDirectory(directory);
    return kj::READY_NOW;
  }

  kj::Promise<void> link(LinkContext context) override {
    login->check();
    auto entry = kj::heap<Entry>();
    entry->foreign = context.getParams().getNode();
    content.set(context.getParams().getName(), kj::mv(entry));
    return kj::READY_NOW;
  }

private:
  Node::Client made(std::string name, bool isTree) {
    login->check();
    auto entry = kj::heap<Entry>();
    entry->content.name = name;
    entry->content.isTree = isTree;
    auto node = open(*entry);
    content.set(name, kj::mv(entry));
    return node;
  }

  Node::Client open(Entry& entry) {
    KJ_IF_MAYBE(client, entry.foreign) return *client;
    if (entry.content.isTree) {
      return Directory::Client(kj::heap<DirectoryImpl>(*state, *login, entry.content));
    }
    return File::Client(kj::heap<FileImpl>(*state, *login, entry.content));
  }
};

class SessionImpl final: public Session::Server, Counted {
public:
  SessionImpl(State& state, std::string user): Counted(state), login(kj::refcounted<Login>()) {
    login->user = user;
  }

  kj::Promise<void> root(RootContext context) override {
    login->check();
    auto& tree = state->trees[login->user];
    if (tree.get() == nullptr) {
      tree = kj::heap<Entry>();
      tree->content.name = login->user;
      tree->content.isTree = true;
    }
    context.getResults().setRoot(kj::heap<DirectoryImpl>(*state, *login, tree->content));
    return kj::READY_NOW;
  }

  kj::Promise<void> logout(LogoutContext context) override {
    state->note(login->user, "logout");
    login->isOpen = false;
    return kj::READY_NOW;
  }

private:
  kj::Own<Login> login;
};

// --- an upload ---

class SinkImpl final: public Sink::Server, Counted {
public:
  SinkImpl(State& state, std::string name): Counted(state), name(name) {}

  kj::Promise<void> write(WriteContext context) override {
    auto delay = bytes == 0 ? 2 * kj::MILLISECONDS : 0 * kj::MILLISECONDS;
    return state->timer.afterDelay(delay).then([this, context]() mutable {
      auto chunk = context.getParams().getChunk();
      if (chunk.size() == 0) fail("[empty chunk]");
      for (kj::byte each: chunk) sum += ++bytes * each;
    });
  }

  kj::Promise<void> end(EndContext context) override {
    state->note(name, "end after " + std::to_string(bytes));
    context.getResults().setBytes(bytes);
    context.getResults().setSum(sum);
    return kj::READY_NOW;
  }

private:
  std::string name;
  uint32_t bytes = 0, sum = 0;
};

// --- the world ---

class WorldImpl final: public World::Server {
public:
  explicit WorldImpl(kj::Timer& timer): state(kj::refcounted<State>(timer)) {}

  kj::Promise<void> journal(JournalContext context) override {
    auto lines = context.getResults().initLines(state->lines.size());
    for (size_t i = 0; i < state->lines.size(); ++i) lines.set(i, state->lines[i]);
    state->lines.clear();
    return kj::READY_NOW;
  }

  kj::Promise<void> live(LiveContext context) override {
    context.getResults().setCount(state->alive);
    return kj::READY_NOW;
  }

  kj::Promise<void> calculator(CalculatorContext context) override {
    context.getResults().setCalculator(kj::heap<CalculatorImpl>(*state));
    return kj::READY_NOW;
  }

  kj::Promise<void> login(LoginContext context) override {
    std::string user = context.getParams().getUser();
    if (user == "nobody") fail("[no such user]");
    context.getResults().setSession(kj::heap<SessionImpl>(*state, user));
    return kj::READY_NOW;
  }

  kj::Promise<void> upload(UploadContext context) override {
    context.getResults().setSink(kj::heap<SinkImpl>(*state, context.getParams().getName()));
    return kj::READY_NOW;
  }

  kj::Promise<void> cell(CellContext context) override {
    context.getResults().setCell(kj::heap<CellImpl>(*state, context.getParams().getName()));
    return kj::READY_NOW;
  }

  kj::Promise<void> keep(KeepContext context) override {
    held = nullptr;
    if (context.getParams().hasCell()) held = context.getParams().getCell();
    return kj::READY_NOW;
  }

  kj::Promise<void> kept(KeptContext context) override {
    KJ_IF_MAYBE(cell, held) context.getResults().setCell(*cell);
    return kj::READY_NOW;
  }

  kj::Promise<void> back(BackContext context) override {
    return state->gate.addBranch().then([context]() mutable {
      context.getResults().setCell(context.getParams().getCell());
    });
  }

  kj::Promise<void> later(LaterContext context) override {
    context.getResults().setCell(context.getParams().getGiver().giveRequest().send().getCell());
    return kj::READY_NOW;
  }

  kj::Promise<void> giver(GiverContext context) override {
    kj::Maybe<Cell::Client> cell;
    std::string name = context.getParams().getName();
    if (!name.empty()) cell = Cell::Client(kj::heap<CellImpl>(*state, name));
    context.getResults().setGiver(kj::heap<GiverImpl>(state->gate.addBranch(), kj::mv(cell)));
    return kj::READY_NOW;
  }

  kj::Promise<void> giverOf(GiverOfContext context) override {
    kj::Maybe<Cell::Client> cell = context.getParams().getCell();
    context.getResults().setGiver(kj::heap<GiverImpl>(state->gate.addBranch(), kj::mv(cell)));
    return kj::READY_NOW;
  }

  kj::Promise<void> open(OpenContext context) override {
    auto delay = context.getParams().getDelay() * kj::MILLISECONDS;
    opening = state->timer.afterDelay(delay).then([this]() { state->opening->fulfill(); })
                  .eagerlyEvaluate(nullptr);
    return kj::READY_NOW;
  }

  kj::Promise<void> call(CallContext context) override { return callFrom(context, 0, 0); }

private:
  kj::Promise<void> callFrom(CallContext context, uint32_t number, uint32_t total) {
    if (number == context.getParams().getTimes()) {
      context.getResults().setTotal(total);
      return kj::READY_NOW;
    }
    auto request = context.getParams().getCell().addRequest();
    request.setNumber(number);
    return request.send().then([this, context, number](auto results) {
      return callFrom(context, number + 1, results.getTotal());
    });
  }

  kj::Own<State> state;
  kj::Maybe<Cell::Client> held;
  kj::Promise<void> opening = kj::READY_NOW;
};

class LobbyImpl final: public Lobby::Server {
public:
  explicit LobbyImpl(kj::Timer& timer): timer(timer) {}

  kj::Promise<void> enter(EnterContext context) override {
    context.getResults().setWorld(kj::heap<WorldImpl>(timer));
    return kj::READY_NOW;
  }

private:
  kj::Timer& timer;
};

// --- a client ---

class Power final: public Calculator::Function::Server {
public:
  explicit Power(std::vector<std::string>& seen): seen(seen) {}

  kj::Promise<void> call(CallContext context) override {
    auto params = context.getParams().getParams();
    seen.push_back("power " + shown(params[0]) + " " + shown(params[1]));
    context.getResults().setNumber(pow(params[0], params[1]));
    return kj::READY_NOW;
  }

private:
  std::vector<std::string>& seen;
};

struct Numbers: kj::Refcounted {
  std::vector<uint32_t> got;
  uint32_t closed = 0;

  std::string shown() {
    std::string line = "it got";
    for (auto each: got) line += " " + std::to_string(each);
    return line;
  }
};

class OwnCell final: public Cell::Server {
public:
  explicit OwnCell(Numbers& numbers): numbers(kj::addRef(numbers)) {}
  ~OwnCell() noexcept(false) { ++numbers->closed; }

  kj::Promise<void> add(AddContext context) override {
    numbers->got.push_back(context.getParams().getNumber());
    uint32_t total = 0;
    for (auto each: numbers->got) total += each;
    context.getResults().setTotal(total);
    return kj::READY_NOW;
  }

private:
  kj::Own<Numbers> numbers;
};

using Added = capnp::RemotePromise<Cell::AddResults>;
using Described = Calculator::Expression::Builder;

class Play {
public:
  Play(kj::AsyncIoContext& io, Lobby::Client lobby)
      : io(io), lobby(lobby), world(enter()) {}

  void play(const std::string& name) {
    static const std::map<std::string, void (Play::*)()> scenarios = {
        {"calculator", &Play::calculator}, {"files", &Play::files}, {"upload", &Play::upload},
        {"promises", &Play::promises}, {"promises_there", &Play::promisesThere},
        {"order", &Play::order}, {"order_after_a_resolve", &Play::orderAfterAResolve},
        {"references", &Play::references}, {"callbacks", &Play::callbacks}};
    (this->*scenarios.at(name))();
    for (auto& line: seen) printf("%s\n", line.c_str());
  }

private:
  template <typename T>
  T wait(kj::Promise<T>&& promise) { return promise.wait(io.waitScope); }
  template <typename T>
  capnp::Response<T> wait(capnp::RemotePromise<T>&& promise) { return promise.wait(io.waitScope); }

  void see(const std::string& line) { seen.push_back(line); }

  template <typename Promise>
  void fails(Promise&& promise) {
    auto exception = kj::runCatchingExceptions([&]() { promise.wait(io.waitScope); });
    KJ_IF_MAYBE(error, exception) {
      std::string text = error->getDescription().cStr();
      auto start = text.find('['), end = text.find(']');
      see("fails: " + (start == text.npos ? "? " + text : text.substr(start, end + 1 - start)));
    } else {
      see("results instead of a failure");
    }
  }

  void sleep(uint64_t milliseconds) {
    wait(io.provider->getTimer().afterDelay(milliseconds * kj::MILLISECONDS));
  }

  void hold(bool isHeld) {
    puts(isHeld ? "!hold" : "!let go");
    fflush(stdout);
    char line[8];
    KJ_ASSERT(fgets(line, sizeof line, stdin) != nullptr);
  }

  World::Client enter() { return wait(lobby.enterRequest().send()).getWorld(); }

  void journal() {
    auto results = wait(world.journalRequest().send());
    for (auto line: results.getLines()) see(std::string("| ") + line.cStr());
  }

  uint32_t live() { return wait(world.liveRequest().send()).getCount(); }

  template <typename Check>
  void until(Check isSo) {
    for (int i = 0; i < 300; ++i) {
      auto count = live();
      if (isSo(count)) return;
      sleep(3);
    }
    see("it did not come about; " + std::to_string(live()) + " are live");
  }
  void untilLive(uint32_t wanted) {
    until([=](uint32_t count) { return count == wanted; });
  }

  // --- a calculator

  Calculator::Function::Client operation(Calculator::Client& calc, Calculator::Operator which) {
    auto request = calc.operationRequest();
    request.setOperator(which);
    return request.send().getFunction();
  }

  template <typename Describe>
  Calculator::Value::Client evaluate(Calculator::Client& calc, Describe describe) {
    auto request = calc.evaluateRequest();
    describe(request.initExpression());
    return request.send().getValue();
  }

  static kj::Array<Described> call(Described expression, Calculator::Function::Client function,
                                   size_t count) {
    auto call = expression.initCall();
    call.setFunction(function);
    auto params = call.initParams(count);
    auto result = kj::heapArrayBuilder<Described>(count);
    for (auto each: params) result.add(each);
    return result.finish();
  }

  static void callOf(Described expression, Calculator::Function::Client function,
                     std::initializer_list<double> literals) {
    auto params = call(expression, function, literals.size());
    auto number = literals.begin();
    for (auto& each: params) each.setLiteral(*number++);
  }

  std::string number(Calculator::Value::Client value) {
    return shown(wait(value.readRequest().send()).getNumber());
  }

  void calculator() {
    auto calc = world.calculatorRequest().send().getCalculator();
    auto add = operation(calc, Calculator::Operator::ADD);
    auto multiply = operation(calc, Calculator::Operator::MULTIPLY);
    auto divide = operation(calc, Calculator::Operator::DIVIDE);
    see(number(evaluate(calc, [](auto it) { it.setLiteral(2.5); })));
    auto half = evaluate(calc, [&](auto it) {
      auto params = call(it, divide, 2);
      callOf(params[0], add, {123, 45});
      params[1].setLiteral(2);
    });
    see("(123 + 45) / 2 is " + number(half));
    journal();
    auto define = calc.defineRequest();
    define.setParams(2);
    auto sum = call(define.initBody(), add, 2);
    auto product = call(sum[0], multiply, 2);
    product[0].setParameter(0);
    product[1].setLiteral(100);
    sum[1].setParameter(1);
    auto f = define.send().getFunction();
    see("f(3, 4) is " + number(evaluate(calc, [&](auto it) { callOf(it, f, {3, 4}); })));
    see("f(f(1, 2), 3) is " + number(evaluate(calc, [&](auto it) {
      auto params = call(it, f, 2);
      callOf(params[0], f, {1, 2});
      params[1].setLiteral(3);
    })));
    journal();
    auto onValue = [&](Calculator::Value::Client value, double other) {
      return evaluate(calc, [&](auto it) {
        auto params = call(it, add, 2);
        params[0].setValue(value);
        params[1].setLiteral(other);
      });
    };
    see("84 + 2 is " + number(onValue(half, 2)));
    Calculator::Function::Client power = kj::heap<Power>(seen);
    auto tower = number(evaluate(calc, [&](auto it) {
      auto params = call(it, power, 2);
      callOf(params[0], power, {2, 3});
      params[1].setLiteral(2);
    }));
    see("2 ** 3 ** 2 is " + tower);
    auto broken = evaluate(calc, [&](auto it) { callOf(it, divide, {1, 0}); });
    fails(broken.readRequest().send());
    fails(onValue(broken, 1).readRequest().send());
    fails(evaluate(calc, [&](auto it) { callOf(it, f, {1}); }).readRequest().send());
  }

  // --- a file system

  capnp::RemotePromise<World::LoginResults> login(const char* user) {
    auto request = world.loginRequest();
    request.setUser(user);
    return request.send();
  }

  capnp::RemotePromise<Directory::FindResults> find(Directory::Client& where, const char* name) {
    auto request = where.findRequest();
    request.setName(name);
    return request.send();
  }

  void link(Directory::Client& where, const char* name, Node::Client node) {
    auto request = where.linkRequest();
    request.setName(name);
    request.setNode(node);
    wait(request.send());
  }

  void write(File::Client& file, uint64_t at, const char* text) {
    auto request = file.writeRequest();
    request.setAt(at);
    request.setData(kj::StringPtr(text).asBytes());
    wait(request.send());
  }

  std::string read(File::Client& file, uint32_t bytes) {
    auto request = file.readRequest();
    request.setBytes(bytes);
    auto results = wait(request.send());
    auto data = results.getData().asChars();
    return std::string(data.begin(), data.size());
  }

  uint64_t bytes(Node::Client node) { return wait(node.statRequest().send()).getBytes(); }
  std::string name(Node::Client node) { return wait(node.statRequest().send()).getName(); }

  void files() {
    auto root = login("ada").getSession().rootRequest().send().getRoot();
    auto make = root.makeRequest();
    make.setName("docs");
    auto docs = make.send().getDirectory();
    auto create = root.createRequest();
    create.setName("hello");
    auto hello = create.send().getFile();
    write(hello, 0, "Hello");
    write(hello, 5, ", world");
    see(name(docs) + " " + std::to_string(bytes(docs)) + " bytes");
    see("hello by the file: " + read(hello, 100));
    link(docs, "notes", hello);
    auto notes = wait(find(docs, "notes")).getNode();
    see("notes has " + std::to_string(bytes(notes)) + " bytes");
    auto listed = wait(root.listRequest().send());
    std::string entries = "entries:", nodes = "the nodes are:";
    for (auto each: listed.getEntries()) entries += std::string(" ") + each.getName().cStr();
    see(entries);
    auto second = listed.getEntries()[1].getNode();
    see("the second is " + name(second) + ", " + std::to_string(bytes(second)) + " bytes");
    for (auto each: listed.getNodes()) nodes += " " + name(each);
    see(nodes);
    auto truth = [](bool is) { return std::string(is ? " True" : " False"); };
    auto nothing = wait(find(root, "nothing"));
    see("null:" + truth(!nothing.hasNode()) + truth(!nothing.hasFile()) +
        truth(!nothing.hasDirectory()));
    auto there = wait(find(root, "docs"));
    see("found: directory" + truth(!there.hasDirectory()) + truth(!there.hasFile()));
    onGuests(hello);
    see("still ada: " + std::to_string(bytes(hello)));
  }

  void onGuests(File::Client hello) {
    auto session = wait(login("guest")).getSession();
    auto root = wait(session.rootRequest().send()).getRoot();
    link(root, "theirs", hello);
    auto theirs = find(root, "theirs").getNode().castAs<File>();
    auto data = read(theirs, 5);
    see("guest: " + std::to_string(data.size()) + " bytes of " + data);
    wait(session.logoutRequest().send());
    journal();
    fails(root.statRequest().send());
    fails(find(root, "theirs").getNode().statRequest().send());
    auto nobody = login("nobody");
    fails(nobody.getSession().rootRequest().send().getRoot().listRequest().send());
    fails(kj::mv(nobody));
  }

  // --- an upload

  Sink::Client sink(const char* name) {
    auto request = world.uploadRequest();
    request.setName(name);
    return request.send().getSink();
  }

  void upload() {
    auto whole = sink("whole");
    for (int number = 1; number <= 30; ++number) {
      auto request = whole.writeRequest();
      auto chunk = request.initChunk(1000);
      memset(chunk.begin(), number, chunk.size());
      wait(request.send());
    }
    auto results = wait(whole.endRequest().send());
    see(std::to_string(results.getBytes()) + " bytes, sum " + std::to_string(results.getSum()));
    journal();
    auto broken = sink("broken");
    for (auto chunk: {"a", "", "b"}) {
      auto request = broken.writeRequest();
      request.setChunk(kj::StringPtr(chunk).asBytes());
      // Once one has failed, nothing more is sent.
      kj::runCatchingExceptions([&]() { wait(request.send()); });
    }
    fails(broken.endRequest().send());
    journal();
  }

  // --- promises

  Cell::Client cell(const char* name) {
    auto request = world.cellRequest();
    request.setName(name);
    return wait(request.send()).getCell();
  }

  Cell::Client later(World::Client& where, Giver::Client giver) {
    auto request = where.laterRequest();
    request.setGiver(giver);
    return wait(request.send()).getCell();
  }

  Added add(Cell::Client& cell, uint32_t number) {
    auto request = cell.addRequest();
    request.setNumber(number);
    return request.send();
  }

  capnp::RemotePromise<World::OpenResults> open(World::Client& where, uint32_t delay) {
    auto request = where.openRequest();
    request.setDelay(delay);
    return request.send();
  }

  template <typename Resolve>
  void onPromise(Cell::Client promised, bool isBroken, Resolve resolve) {
    std::vector<Added> early;
    for (uint32_t number = 0; number < 3; ++number) early.push_back(add(promised, number));
    resolve();
    if (isBroken) {
      fails(kj::mv(early[0]));
      fails(add(promised, 3));
      return;
    }
    std::string line = "totals";
    for (auto& each: early) line += " " + std::to_string(wait(kj::mv(each)).getTotal());
    see(line + " " + std::to_string(wait(add(promised, 3)).getTotal()));
  }

  void promises() {
    auto numbers = kj::refcounted<Numbers>();
    std::pair<const char*, kj::Maybe<Cell::Client>> kinds[] = {
        {"of a cell of the server's", cell("theirs")},
        {"of a cell of the client's", Cell::Client(kj::heap<OwnCell>(*numbers))},
        {"of nothing", nullptr}};
    for (auto& each: kinds) {
      see(each.first);
      auto allow = kj::newPromiseAndFulfiller<void>();
      bool isBroken = each.second == nullptr;
      auto promised =
          later(world, kj::heap<GiverImpl>(kj::mv(allow.promise), kj::mv(each.second)));
      onPromise(promised, isBroken, [&]() { allow.fulfiller->fulfill(); });
    }
    see(numbers->shown());
  }

  void promisesThere() {
    for (auto name: {"new", ""}) {
      see(*name ? "of a cell" : "of nothing");
      auto other = enter();
      auto request = other.giverRequest();
      request.setName(name);
      auto promised = later(other, wait(request.send()).getGiver());
      onPromise(promised, !*name, [&]() { wait(open(other, 0)); });
    }
  }

  template <typename IsKnown>
  void onOrder(Cell::Client promised, Numbers& numbers, IsKnown isKnown) {
    std::vector<Added> calls;
    for (uint32_t number = 0; number < 4; ++number) calls.push_back(add(promised, number));
    wait(open(world, 50));
    hold(true);
    for (uint32_t number = 4; number < 8; ++number) calls.push_back(add(promised, number));
    isKnown();
    for (uint32_t number = 8; number < 12; ++number) calls.push_back(add(promised, number));
    sleep(3);
    hold(false);
    uint32_t total = 0;
    for (auto& each: calls) total = wait(kj::mv(each)).getTotal();
    see(numbers.shown());
    see("total " + std::to_string(total));
  }

  void order() {
    auto numbers = kj::refcounted<Numbers>();
    auto request = world.backRequest();
    request.setCell(kj::heap<OwnCell>(*numbers));
    auto promised = request.send();
    auto again = promised.getCell();
    onOrder(again, *numbers, [&]() { wait(kj::mv(promised)); });
  }

  void orderAfterAResolve() {
    auto numbers = kj::refcounted<Numbers>();
    auto request = world.giverOfRequest();
    request.setCell(kj::heap<OwnCell>(*numbers));
    auto promised = later(world, wait(request.send()).getGiver());
    onOrder(promised, *numbers, [&]() { sleep(200); });
  }

  // --- references

  void keep(kj::Maybe<Cell::Client> cell) {
    auto request = world.keepRequest();
    KJ_IF_MAYBE(known, cell) request.setCell(*known);
    wait(request.send());
  }

  Cell::Client kept() { return wait(world.keptRequest().send()).getCell(); }

  uint32_t callOn(Cell::Client cell) {
    auto request = world.callRequest();
    request.setCell(cell);
    request.setTimes(3);
    return wait(request.send()).getTotal();
  }

  void references() {
    kj::Maybe<Cell::Client> first = cell("a"), second = cell("b");
    untilLive(2);
    see("two made");
    first = nullptr;
    untilLive(1);
    see("one closed: 1 live");
    keep(KJ_ASSERT_NONNULL(second));
    kj::Maybe<Cell::Client> same = kept();
    second = nullptr;
    auto total = std::to_string(callOn(KJ_ASSERT_NONNULL(same)));
    see("a kept cell has " + total + ", and its own name for the server: " + total);
    keep(nullptr);
    untilLive(1);
    same = nullptr;
    untilLive(0);
    see("let go of: 0 live");
    {
      auto session = login("ada").getSession();
      auto root = wait(session.rootRequest().send()).getRoot();
      untilLive(2);
    }
    untilLive(0);
    see("a session and its root: 2 live, then 0");
    for (int i = 0; i < 5; ++i) {
      auto request = world.cellRequest();
      request.setName("unwanted");
      request.send().getCell();
    }
    untilLive(0);
    see("given up: 0 live");
  }

  void callbacks() {
    auto mine = kj::refcounted<Numbers>(), other = kj::refcounted<Numbers>();
    auto total = callOn(kj::heap<OwnCell>(*mine));
    see("called 3 times: total " + std::to_string(total));
    until([&](uint32_t) { return mine->closed == 1; });
    see(mine->closed == 1 ? "let go of: True" : "let go of: False");
    {
      Cell::Client cell = kj::heap<OwnCell>(*other);
      keep(cell);
      total = callOn(cell);
    }
    for (int i = 0; i < 3; ++i) live();
    see(other->closed == 0 ? "kept: True" : "kept: False");
    {
      auto again = kept();
      auto more = wait(add(again, 1)).getTotal();
      see("called back: " + std::to_string(total) + " " + std::to_string(more));
    }
    keep(nullptr);
    until([&](uint32_t) { return other->closed > 0; });
    see("closed: " + (other->closed == 1 ? "once" : std::to_string(other->closed)));
  }

  kj::AsyncIoContext& io;
  Lobby::Client lobby;
  std::vector<std::string> seen;
  World::Client world;
};

void serve(kj::AsyncIoContext& io) {
  capnp::TwoPartyServer server(kj::heap<LobbyImpl>(io.provider->getTimer()));
  auto address = io.provider->getNetwork().parseAddress("127.0.0.1").wait(io.waitScope);
  auto listener = address->listen();
  printf("%u\n", listener->getPort());
  fflush(stdout);
  auto input = io.lowLevelProvider->wrapInputFd(0);
  auto serving = server.listen(*listener).eagerlyEvaluate([](kj::Exception&& error) {
    KJ_LOG(ERROR, error);
  });
  input->readAllBytes().wait(io.waitScope);
}

void play(kj::AsyncIoContext& io, unsigned port, const char* scenario) {
  auto address = io.provider->getNetwork().parseAddress("127.0.0.1", port).wait(io.waitScope);
  auto stream = address->connect().wait(io.waitScope);
  capnp::TwoPartyClient client(*stream);
  Play(io, client.bootstrap().castAs<Lobby>()).play(scenario);
}

}  // namespace

int main(int count, char** arguments) {
  auto io = kj::setupAsyncIo();
  if (count == 3) {
    play(io, atoi(arguments[1]), arguments[2]);
  } else {
    serve(io);
  }
}
