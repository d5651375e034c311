@0xb1c8d3f09a4e7265;
# What methods return: `case` names it, and they answer with a value of one field each.

using Kinds = import "kinds.capnp".Kinds;
using Rare = import "kinds.capnp".Rare;

interface Returns {
    give @0 (case :Text, kinds :Kinds) -> (kinds :Kinds, rare :Rare, data :Data, text :Text,
                                           number :Int16, flag :Bool);
    giveLater @1 (case :Text, kinds :Kinds) -> (kinds :Kinds, rare :Rare, data :Data, text :Text,
                                                number :Int16, flag :Bool);
}
