@0xb7c2a5f1d3e84690;
# An example with numbers: a tensor goes in, its statistics and the data come back.

interface TensorService {
    struct Tensor {
        name @0 :Text;
        shape @1 :List(UInt32);
        data @2 :Data;
        # Little-endian float32, row by row; as many as the product of `shape`.
    }

    struct Statistics {
        count @0 :UInt64;
        minimum @1 :Float64;
        maximum @2 :Float64;
        mean @3 :Float64;
        deviation @4 :Float64;
        # Of the population, not of a sample.
    }

    describe @0 (tensor :Tensor) -> (statistics :Statistics, tensor :Tensor);
}
