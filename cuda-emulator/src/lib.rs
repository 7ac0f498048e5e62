//! A GPU for tests: the engine's kernels compiled by the host's C++ compiler, lanes as fibres, streams in random
//! order where no event forbids it. Nothing of it is in a miner's program.
