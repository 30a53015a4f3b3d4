//! What several test targets share.
#![allow(dead_code)]

pub mod toy_host;
