//! Every limit on untrusted input, with its number. A file over a limit is refused with the limit's name, never truncated.

/// Largest protobuf message ONNX Runtime reads (2 GiB − 1); bigger weights must be external data.
pub const MAX_PROTO_BYTES: u64 = (1 << 31) - 1;
/// Most elements of one tensor read from a file.
pub const MAX_TENSOR_ELEMENTS: u64 = 1 << 33;
/// Most dimensions of a tensor.
pub const MAX_RANK: usize = 32;
/// Deepest nesting of subgraphs (`If`, `Loop`, `Scan` bodies).
pub const MAX_SUBGRAPH_DEPTH: usize = 32;
/// Most nodes that calls of model-local functions may become.
pub const MAX_INLINED_NODES: usize = 1 << 18;
/// Most samples taken from one data source.
pub const MAX_SAMPLES: usize = 1_000_000;
/// Most elements of one sample of one input (2 GiB of float32): a sample is held in memory.
pub const MAX_SAMPLE_ELEMENTS: usize = 1 << 29;
/// Largest stored `.npz` member whose checksum is compared on opening: a second or so of reading.
pub const MAX_CHECKED_BYTES: u64 = 2 << 30;
/// Largest plan, project or label file.
pub const MAX_TEXT_BYTES: u64 = 256 << 20;
/// Most rows kept of one layer's input.
pub const RESERVOIR_ROWS: usize = 128;
/// Fewest rows kept of one layer's input, however wide they are.
pub const RESERVOIR_MIN_ROWS: usize = 16;
/// Bytes of kept rows of one layer, unless the fewest rows take more.
pub const RESERVOIR_BYTES: usize = 1 << 20;
/// Most samples whose ranges are kept one by one: 8 bytes a sample and tensor.
pub const SAMPLE_RANGES: usize = 512;
/// Bytes of the layers' inputs that are kept between previews of repairs, unless one row a layer and sample takes more.
pub const WORKBENCH_BYTES: usize = 192 << 20;
/// Largest statistics file.
pub const MAX_STATS_BYTES: u64 = 4 << 30;
/// Largest file of repaired weights.
pub const MAX_REPAIR_BYTES: u64 = 4 << 30;
