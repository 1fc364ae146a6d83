//! Images as files: `load`, `save` and `import`.

mod change;
mod docker;
mod error;
mod import;
mod layout;
mod load;
mod recipe;
mod recompress;
mod save;
mod source;

pub use change::{Change, ParseChangeError};
pub use error::ArchiveError;
pub use import::{ImportOptions, import};
pub use load::{LoadEvent, LoadFrom, LoadOptions, load, load_reporting};
pub(crate) use recipe::{Recipe, RecipeLayer};
pub(crate) use recompress::{CopyError, gzip_to_blob};
pub use save::{SaveFormat, SaveTo, save};
