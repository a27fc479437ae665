//! What escalations need, read and checked before anything listens, and started when the server does.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{ServeError, census};
use crate::config::{ConfigError, Settings};
use crate::escalation::sinks::Delivery;
use crate::escalation::{Location, Recorder, Store, Task};
use crate::policy::Library;
use crate::session::Escalating;

/// What is needed for escalations, checked but not started.
#[derive(Debug)]
pub struct Prepared {
    library: Arc<Library>,
    delivery: Arc<Delivery>,
    location: Option<Location>,
}

impl Prepared {
    /// Reads policies and delivery file, and checks all about escalations that can be checked without the
    /// store.
    ///
    /// # Errors
    /// [`ServeError`] with the setting's name.
    pub fn new(settings: &Settings) -> Result<Self, ServeError> {
        let folder = &settings.policies;
        let folder = Some(folder.as_path()).filter(|folder| !folder.as_os_str().is_empty());
        let library = Library::open(folder)?;
        let name = &settings.default_policy;
        if !name.is_empty() && library.get(name).is_none() {
            return Err(ServeError::DefaultPolicy { name: name.clone(), known: library.names() });
        }
        let delivery = settings.delivery()?;
        for sink in delivery.sinks() {
            // An attempt ends before nine tenths of its lease are over.
            if sink.timeout() > settings.delivery_lease.0.mul_f32(0.9) {
                let sink_name = sink.name().to_owned();
                return Err(ServeError::Lease { sink: sink_name, timeout: sink.timeout() });
            }
        }
        let location = settings.store_location()?;
        location.as_ref().map(Location::check).transpose()?;
        if location.is_none() && !name.is_empty() {
            let problem = "needs an escalation_store".to_owned();
            return Err(ConfigError::Value { key: "default_policy", problem }.into());
        }
        Ok(Self { library: Arc::new(library), delivery: Arc::new(delivery), location })
    }

    /// The sinks.
    pub fn delivery(&self) -> &Delivery {
        &self.delivery
    }

    /// Opens the store and starts what records and delivers, beside it what counts, on `tasks` until `background`
    /// ends. `None` where nothing is kept.
    ///
    /// # Errors
    /// [`ServeError`] with the setting's name.
    pub(super) async fn start(
        self,
        settings: &Settings,
        background: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Result<Option<(Escalating, Task)>, ServeError> {
        let Some(location) = self.location else {
            return Ok(None);
        };
        let store = Store::at(location, settings.store_timeout.0)?;
        tracing::info!(
            store = %store.location(),
            policies = self.library.names(),
            sinks = self.delivery.sinks().len(),
            "escalations"
        );
        let owner = match (settings.replica.as_str(), store.location()) {
            // Nobody else may use the file: what was under way before a restart was this server's, and need
            // not wait for its leases to run out.
            ("", Location::Sqlite(_)) => "the only one".to_owned(),
            ("", Location::Postgres(_)) => uuid::Uuid::now_v7().to_string(),
            (name, _) => name.to_owned(),
        };
        let delivery = self.delivery.clone();
        let (recorder, task) =
            Recorder::start(store, self.delivery, settings.recorder(), owner).await?;
        let (counted, pause) = (recorder.store().clone(), settings.census_interval.0);
        tasks.spawn(census::take(counted, delivery, pause, background.clone()));
        let escalating = Escalating {
            library: self.library,
            default_policy: settings.default_policy.clone(),
            inline: settings.inline_policies.then_some(settings.inline_policy_severity),
            recorder,
        };
        Ok(Some((escalating, task)))
    }
}
