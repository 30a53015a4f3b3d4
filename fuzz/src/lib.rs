//! What the fuzz targets share: bounds that every input is held to, stores made of an input, and a model of the bytes.

pub mod builder;
pub mod c;
pub mod confine;
#[path = "../../tests/common/crc32.rs"]
mod crc32;
pub mod examine;
pub mod model;
#[path = "../../tests/common/reference.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod reference;
pub mod session;
pub mod watch;
