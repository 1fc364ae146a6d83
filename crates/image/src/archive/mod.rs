//! Images as files: `load`, `save` and `import`.

mod change;
mod docker;
mod error;
mod import;
mod layout;
mod load;
mod recipe;
mod save;
mod source;

pub use change::{Change, ParseChangeError};
pub use error::ArchiveError;
pub use import::{ImportOptions, import};
pub use load::{LoadFrom, LoadOptions, load};
pub(crate) use recipe::{Recipe, RecipeLayer};
pub use save::{SaveFormat, SaveTo, save};
