//! Runs whole lists of plugins on one host and keeps the results between ADD and DEL.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::anyhow;
use serde_json::{Map, Value};

use super::{Answer, Attachment, Call, Conflist, Failure, Verb};
use crate::netns::Netns;

/// Where Debian keeps the reference plugins.
const REFERENCE: &str = "/usr/lib/cni";

/// The last result of each attachment, by container and interface.
type Cache = BTreeMap<(String, String), Value>;

/// A runtime on one host.
#[derive(Debug)]
pub struct Runtime {
    host: Netns,
    folders: Vec<PathBuf>,
    limit: Duration,
    cache: Mutex<Cache>,
}

/// What ADD brought.
#[derive(Debug, Clone)]
pub struct Added {
    /// The result of the last plugin.
    pub result: Value,
    /// The lives of all plugin processes together.
    pub took: Duration,
}

impl Runtime {
    /// A runtime that runs plugins in this namespace and looks for them in these folders, then among the reference
    /// plugins of the machine.
    pub fn new(host: &Netns, folders: &[&Path]) -> Self {
        let mut folders: Vec<PathBuf> = folders.iter().map(|&folder| folder.to_owned()).collect();
        folders.push(REFERENCE.into());
        Self { host: host.clone(), folders, limit: Duration::from_secs(30), cache: Mutex::default() }
    }

    /// The host's namespace.
    pub fn host(&self) -> &Netns {
        &self.host
    }

    /// ADD for every plugin of the list in turn. What an earlier plugin has done stays done when a later one fails: a
    /// runtime calls [`Self::del`] then.
    ///
    /// # Errors
    /// What the first plugin that fails says.
    pub fn add(&self, list: &Conflist, attachment: &Attachment) -> Result<Added, Failure> {
        let mut added = Added { result: Value::Null, took: Duration::ZERO };
        for (index, plugin) in list.plugins.iter().enumerate() {
            let previous = (index > 0).then_some(&added.result);
            let document = list.derive(plugin, &attachment.capabilities, previous);
            let answer = self.call(Verb::Add, plugin, Some(attachment), document)?;
            added = Added { result: answer.result()?, took: added.took + answer.took };
        }
        self.cache().insert(attachment.key(), added.result.clone());
        Ok(added)
    }

    /// DEL for every plugin of the list, last one first; returns the time all processes took.
    ///
    /// # Errors
    /// What the first plugin that fails says; the result is kept then, for the next try.
    pub fn del(&self, list: &Conflist, attachment: &Attachment) -> Result<Duration, Failure> {
        let previous = self.cached(attachment).filter(|_| list.is_at_least([0, 4, 0]));
        let mut took = Duration::ZERO;
        for plugin in list.plugins.iter().rev() {
            let document = list.derive(plugin, &attachment.capabilities, previous.as_ref());
            let answer = self.call(Verb::Del, plugin, Some(attachment), document)?;
            answer.accepted()?;
            took += answer.took;
        }
        self.cache().remove(&attachment.key());
        Ok(took)
    }

    /// CHECK for every plugin of the list, with the result that was kept. Does nothing where the list says so.
    ///
    /// # Errors
    /// What the first plugin that fails says; also when the list is too old for CHECK.
    pub fn check(&self, list: &Conflist, attachment: &Attachment) -> Result<(), Failure> {
        if !list.is_at_least([0, 4, 0]) {
            return Err(Failure::Configuration(format!("{} has no CHECK", list.cni_version)));
        }
        if list.disable_check {
            return Ok(());
        }
        let previous = self.cached(attachment);
        list.plugins.iter().try_for_each(|plugin| {
            let document = list.derive(plugin, &attachment.capabilities, previous.as_ref());
            self.call(Verb::Check, plugin, Some(attachment), document)?.silence()
        })
    }

    /// GC for every plugin of the list, all of them even when one fails.
    ///
    /// # Errors
    /// What the first plugin that failed said; also when the list is too old for GC.
    pub fn gc(&self, list: &Conflist, valid: &[Attachment]) -> Result<(), Failure> {
        since_1_1(list)?;
        let each = list
            .plugins
            .iter()
            .map(|plugin| self.call(Verb::Gc, plugin, None, list.derive_gc(plugin, valid))?.silence());
        each.collect::<Vec<_>>().into_iter().collect()
    }

    /// STATUS for every plugin of the list.
    ///
    /// # Errors
    /// What the first plugin that is not ready says; also when the list is too old for STATUS.
    pub fn status(&self, list: &Conflist) -> Result<(), Failure> {
        since_1_1(list)?;
        list.plugins
            .iter()
            .try_for_each(|plugin| self.call(Verb::Status, plugin, None, list.base(plugin))?.silence())
    }

    /// What VERSION of one plugin prints.
    ///
    /// # Errors
    /// When it is not there or prints no object.
    pub fn version(&self, plugin: &str, input: &[u8]) -> Result<Value, Failure> {
        self.run(&Call::new(&self.find(plugin)?, Verb::Version, None, input))?.result()
    }

    /// A call to one plugin as this runtime would make it, for tests that bend it.
    ///
    /// # Errors
    /// When the plugin is not there.
    pub fn prepare(
        &self,
        verb: Verb,
        list: &Conflist,
        index: usize,
        attachment: Option<&Attachment>,
    ) -> Result<Call, Failure> {
        let plugin = list
            .plugins
            .get(index)
            .ok_or_else(|| Failure::Configuration(format!("{} has no plugin {index}", list.name)))?;
        let capabilities = attachment.map(|one| one.capabilities.clone()).unwrap_or_default();
        let previous = attachment.and_then(|one| self.cached(one)).filter(|_| verb != Verb::Add);
        let document = Value::Object(list.derive(plugin, &capabilities, previous.as_ref()));
        Ok(Call::new(&self.find(kind(plugin))?, verb, attachment, document.to_string().as_bytes()))
    }

    /// Runs a call on this host.
    ///
    /// # Errors
    /// When it cannot be started or is not done in time.
    pub fn run(&self, call: &Call) -> Result<Answer, Failure> {
        self.inside(|| call.run())
    }

    /// Runs a call on this host and kills it when this much time has passed.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run_killed(&self, call: &Call, after: Duration) -> Result<Answer, Failure> {
        self.inside(|| call.start()?.kill_after(after))
    }

    /// Forgets all results, as a runtime that has lost its files.
    pub fn forget(&self) {
        self.cache().clear();
    }

    /// The result that was kept of an attachment.
    pub fn cached(&self, attachment: &Attachment) -> Option<Value> {
        self.cache().get(&attachment.key()).cloned()
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(
        &self,
        verb: Verb,
        plugin: &Map<String, Value>,
        attachment: Option<&Attachment>,
        document: Map<String, Value>,
    ) -> Result<Answer, Failure> {
        let input = Value::Object(document).to_string();
        let call = Call::new(&self.find(kind(plugin))?, verb, attachment, input.as_bytes());
        self.run(&call.limit(self.limit).env("CNI_PATH", self.search_path()))
    }

    fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T, Failure> + Send) -> Result<T, Failure> {
        let entered = self.host.run(|| Ok(work()));
        entered
            .map_err(|error| Failure::NotStarted { plugin: "any".to_owned(), reason: format!("{error:#}") })?
    }

    fn search_path(&self) -> std::ffi::OsString {
        std::env::join_paths(&self.folders).unwrap_or_default()
    }

    fn find(&self, plugin: &str) -> Result<PathBuf, Failure> {
        let places = self.folders.iter().map(|folder| folder.join(plugin));
        let found = places.into_iter().find(|path| path.is_file());
        found.ok_or_else(|| Failure::NotStarted {
            plugin: plugin.to_owned(),
            reason: anyhow!("not in {:?}: `tests/setup.sh` installs the reference plugins", self.folders)
                .to_string(),
        })
    }
}

/// The file name of a plugin.
fn kind(plugin: &Map<String, Value>) -> &str {
    plugin.get("type").and_then(Value::as_str).unwrap_or_default()
}

/// GC and STATUS exist only since 1.1.0.
fn since_1_1(list: &Conflist) -> Result<(), Failure> {
    match list.is_at_least([1, 1, 0]) {
        true => Ok(()),
        false => Err(Failure::Configuration(format!("{} has no GC and no STATUS", list.cni_version))),
    }
}
