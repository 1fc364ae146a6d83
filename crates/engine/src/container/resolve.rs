//! From what a user typed to a container.

use bulkhead_types::{ContainerId, ContainerName, chain};

use super::{Container, ContainerError, Record, RecordError};
use crate::Engine;
use crate::error::Error;

impl Engine {
    /// The container with this identifier, name or unique prefix of an identifier, in this order.
    pub fn container(&self, reference: &str) -> Result<Container, Error> {
        Ok(self.find(reference)?)
    }

    /// All finished containers, newest first. One whose record is damaged is left out with a
    /// warning, so that it cannot hide the others; `rm` still removes it.
    pub fn containers(&self) -> Result<Vec<Container>, Error> {
        let mut found = Vec::new();
        for container in self.each_container()? {
            match container {
                Ok(container) => found.push(container),
                Err((id, error)) => {
                    tracing::warn!("container {} is left out: {}", id.short(), chain(&error));
                }
            }
        }
        found.sort_by(|a, b| {
            b.record
                .created
                .cmp(&a.record.created)
                .then_with(|| a.id().cmp(b.id()))
        });
        Ok(found)
    }

    /// Every finished container or, where its record cannot be read, its identifier and the reason; in no order.
    pub(crate) fn each_container(
        &self,
    ) -> Result<impl Iterator<Item = Result<Container, (ContainerId, RecordError)>>, Error> {
        let ids = self.root.ids()?;
        Ok(ids.into_iter().filter_map(|id| match self.read(&id) {
            Ok(container) => container.map(Ok),
            Err(error) => Some(Err((id, error))),
        }))
    }

    pub(crate) fn find(&self, reference: &str) -> Result<Container, ContainerError> {
        let id = self.find_id(reference)?;
        self.read(&id)?
            .ok_or_else(|| ContainerError::NotFound(reference.to_owned()))
    }

    /// As [`Engine::find`], but without the need for a readable record.
    pub(crate) fn find_id(&self, reference: &str) -> Result<ContainerId, ContainerError> {
        let missing = || ContainerError::NotFound(reference.to_owned());
        if let Ok(id) = reference.parse::<ContainerId>()
            && self.root.has(&id)
        {
            return Ok(id);
        }
        if let Ok(name) = reference.parse::<ContainerName>()
            && let Some(id) = self.find_name(&name)?
        {
            return Ok(id);
        }
        let hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if reference.is_empty() || !reference.bytes().all(hex) {
            return Err(missing());
        }
        let mut matches = self
            .root
            .ids()?
            .into_iter()
            .filter(|id| id.as_str().starts_with(reference));
        match (matches.next(), matches.next()) {
            (Some(id), None) => Ok(id),
            (Some(_), Some(_)) => Err(ContainerError::Ambiguous(reference.to_owned())),
            (None, _) => Err(missing()),
        }
    }

    /// By the index; when that does not know, by the records, and the index learns it again.
    fn find_name(&self, name: &ContainerName) -> Result<Option<ContainerId>, ContainerError> {
        if let Some(id) = self.names.lookup(name)
            && self.root.has(&id)
        {
            return Ok(Some(id));
        }
        for id in self.root.ids()? {
            if let Ok(Some(record)) = Record::read(&self.root.container(&id))
                && record.name == *name
            {
                self.names
                    .reserve(name, &id, |owner| self.root.has(owner))?;
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// The container in the directory of `id`; `None` when it does not exist or was never finished.
    pub(crate) fn read(&self, id: &ContainerId) -> Result<Option<Container>, RecordError> {
        let dir = self.root.container(id);
        Ok(Record::read(&dir)?.map(|record| Container {
            dir,
            record,
            warnings: Vec::new(),
            guest_is_current: false,
        }))
    }
}
