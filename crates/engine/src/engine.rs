//! The engine: a handle on one state directory.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use bulkhead_image::Store;

use crate::error::Error;
use crate::names::Names;
use crate::root::Root;
use crate::settings::{EngineConfig, Environment, Settings};

/// Everything that a front end needs, over one state directory. Opening it reads at most two small
/// files and, where that is asked for, makes the directory when it is missing; any number of processes
/// may have one open.
#[derive(Debug)]
pub struct Engine {
    pub(crate) root: Root,
    pub(crate) names: Names,
    pub(crate) settings: Settings,
    pub(crate) environment: Environment,
    /// What is started as a monitor; `None` is the running binary.
    pub(crate) sandbox_program: Option<PathBuf>,
    store: OnceCell<Store>,
}

impl Engine {
    /// Opens the engine.
    pub fn open(config: EngineConfig) -> Result<Self, Error> {
        let settings = Settings::load(&config)?;
        let root = Root::new(
            config
                .environment
                .choose_root(config.root.as_deref(), &settings)?,
        );
        if config.create_root {
            root.create()?;
        } else {
            root.claim()?;
        }
        Ok(Self {
            names: Names::new(root.names()),
            root,
            settings,
            environment: config.environment,
            sandbox_program: None,
            store: OnceCell::new(),
        })
    }

    /// The state directory.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// The configuration, defaults filled in.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The image store, for everything that concerns images alone: list, resolve, tag, history,
    /// pull, push, load, save, import, bootstrap. Opened at first use. Removal goes through
    /// [`Engine::remove_image`] and [`Engine::prune_images`], which know about containers.
    pub fn store(&self) -> Result<&Store, Error> {
        if let Some(store) = self.store.get() {
            return Ok(store);
        }
        let opened = if self.root.exists() {
            Store::open(self.root.path())?
        } else {
            Store::empty(self.root.path())
        };
        let opened = opened.with_bounds(self.settings.images);
        Ok(self.store.get_or_init(|| opened))
    }
}
