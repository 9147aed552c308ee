//! What logins have found out about databases (Redis: the command table), kept so that later ones need not ask.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ringgate_policy::Database;
use ringgate_protocol::Protocol;

/// After this long a login asks again: the server may have been upgraded, or loaded a module.
const AGE_MAX: Duration = Duration::from_secs(3600);

/// What is known of each registered database. Read and written once for each session, never in one.
#[derive(Default)]
pub struct Learned(Mutex<HashMap<String, Entry>>);

struct Entry {
    /// Where the server was.
    uri: String,
    at: Instant,
    what: Arc<dyn Any + Send + Sync>,
}

impl Learned {
    /// What is known of `database`, unless it has moved or the knowledge is old.
    pub fn of<P: Protocol>(&self, database: &Database) -> Option<Arc<P::Learned>> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(&database.name)?;
        let fresh = entry.uri == database.uri && entry.at.elapsed() < AGE_MAX;
        if fresh { entry.what.clone().downcast().ok() } else { None }
    }

    /// What is known of all databases of one protocol, in no order.
    pub fn all<P: Protocol>(&self) -> Vec<Arc<P::Learned>> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.values().filter_map(|entry| entry.what.clone().downcast().ok()).collect()
    }

    /// Keeps what a login to `database` has found out.
    pub fn keep<P: Protocol>(&self, database: &Database, what: Arc<P::Learned>) {
        let entry = Entry { uri: database.uri.clone(), at: Instant::now(), what };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(database.name.clone(), entry);
    }
}
