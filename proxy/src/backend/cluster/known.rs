//! The nodes of clusters that were seen, for when the registered one is down.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use ringgate_policy::Database;
use ringgate_protocol::redis::cluster::Address;

/// Masters by database name, as a session of this worker saw them last.
#[derive(Default)]
pub struct Known(RefCell<HashMap<String, Seen>>);

struct Seen {
    /// As it was registered then.
    database: Arc<Database>,
    masters: Vec<Address>,
}

impl Known {
    /// Notes that the masters of `database` are at `masters`.
    pub(super) fn keep(&self, database: &Arc<Database>, masters: Vec<Address>) {
        self.0.borrow_mut().insert(database.name.clone(), Seen { database: database.clone(), masters });
    }

    /// The masters of `database`, if it is still registered at the same address.
    pub(super) fn of(&self, database: &Database) -> Vec<Address> {
        let known = self.0.borrow();
        let seen = known.get(&database.name).filter(|seen| seen.database.uri == database.uri);
        seen.map(|seen| seen.masters.clone()).unwrap_or_default()
    }
}
