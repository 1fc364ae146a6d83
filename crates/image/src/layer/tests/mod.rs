//! What a conversion promises.

mod bounds;
mod content;
mod hostile;
mod objects;
