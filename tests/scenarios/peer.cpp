// The lobby of scenarios.capnp in C++, the reference implementation: `peer` prints its port, and
// ends with its standard input. What each object does is written in service.py.

#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>
#include <cstdio>
#include <map>
#include <set>
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

  kj::Promise<void> laterHere(LaterHereContext context) override {
    std::string name = context.getParams().getName();
    kj::Promise<Cell::Client> made = state->gate.addBranch().then(
        [name, state = kj::addRef(*state)]() mutable -> Cell::Client {
          if (name.empty()) fail("[no name]");
          return kj::heap<CellImpl>(*state, name);
        });
    context.getResults().setCell(kj::mv(made));
    return kj::READY_NOW;
  }

  kj::Promise<void> laterBack(LaterBackContext context) override {
    kj::Promise<Cell::Client> known = state->gate.addBranch().then(
        [cell = context.getParams().getCell()]() mutable { return kj::mv(cell); });
    context.getResults().setCell(kj::mv(known));
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

}  // namespace

int main() {
  auto io = kj::setupAsyncIo();
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
