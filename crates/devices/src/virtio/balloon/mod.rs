//! Memory balloon (section 5.5) with free page reporting: what the guest does not use goes back to
//! the host, page by page, without anybody asking for it.
//!
//! A guest reports free pages in ranges of 2 MiB and more, some seconds after they became free, and
//! takes them into use again without a word: the next access brings a page of zeros. The balloon
//! proper (pages the host asks for) is served too, but this host never asks.
//!
//! A guest can only ever give back its own pages, so the worst it can do is to lose its own data.

mod device;

pub use device::Balloon;

#[cfg(test)]
mod tests;
