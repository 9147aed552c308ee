//! The nodes of clusters that were seen, for when the registered one is down.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use ringgate_policy::Database;
use ringgate_protocol::redis::cluster::Address;

/// Masters by database name, as a session of this worker saw them last.
#[derive(Default)]
pub struct Known(RefCell<HashMap<String, (Arc<Database>, Vec<Address>)>>);

impl Known {
    /// Notes that the masters of `database` are at `masters`.
    pub(super) fn keep(&self, database: &Arc<Database>, masters: Vec<Address>) {
        self.0.borrow_mut().insert(database.name.clone(), (database.clone(), masters));
    }

    /// The masters of `database`, if it is still registered at the same address.
    pub(super) fn of(&self, database: &Database) -> Vec<Address> {
        let known = self.0.borrow();
        let known = known.get(&database.name).filter(|(then, _)| then.uri == database.uri);
        known.map(|(_, masters)| masters.clone()).unwrap_or_default()
    }
}
