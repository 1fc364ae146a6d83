//! What a conversion promises.

mod content;
mod hostile;
mod objects;
