//! The lifecycle against an agent in this process: no kernel, no jail, the real protocol.

mod clients;
mod fake;
mod life;
mod streams;
