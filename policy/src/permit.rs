//! Proof that a request was authorised.

use std::sync::Arc;

use crate::command::{CommandRules, CommandSet};
use crate::database::Database;
use crate::key::KeyRules;
use crate::options::SessionOptions;

/// Proof that [`Principal::authorize`](crate::Principal::authorize) said yes. Only this crate makes one, and whoever
/// connects takes it by value.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit that is not used means that nothing was connected"]
pub struct Permit {
    pub(crate) database: Arc<Database>,
    pub(crate) db_user: String,
    pub(crate) db_name: String,
    pub(crate) options: SessionOptions,
    pub(crate) version: u64,
    pub(crate) rules: Vec<Arc<str>>,
    pub(crate) commands: CommandRules,
    pub(crate) keys: Option<KeyRules>,
    pub(crate) checks_names: bool,
    pub(crate) mfa_verified: bool,
    pub(crate) device_trusted: bool,
}

impl Permit {
    /// The database, as it was when authorised.
    pub fn database(&self) -> &Arc<Database> {
        &self.database
    }

    /// The database user to log in as.
    pub fn db_user(&self) -> &str {
        &self.db_user
    }

    /// The database name to connect to; never empty on PostgreSQL (the user's name) and Redis (`0`).
    pub fn db_name(&self) -> &str {
        &self.db_name
    }

    /// Whether `db_names` limits the session. Where it does not, any name may be changed to; where it does,
    /// [`Principal::reauthorize`](crate::Principal::reauthorize) says.
    pub fn checks_names(&self) -> bool {
        self.checks_names
    }

    /// The combined options of the principal's roles.
    pub fn options(&self) -> &SessionOptions {
        &self.options
    }

    /// Version of the snapshot that was asked.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Names of the roles that allow the connection, sorted; never empty.
    pub fn rules(&self) -> &[Arc<str>] {
        &self.rules
    }

    /// The command classes of PostgreSQL that [`Self::command_rules`] permits.
    pub fn commands(&self) -> CommandSet {
        CommandSet::permitted(&self.commands)
    }

    /// What the roles permit and deny of commands.
    pub fn command_rules(&self) -> &CommandRules {
        &self.commands
    }

    /// The keys that commands may name; absent where every key is allowed, and then commands whose keys cannot be
    /// told are too.
    pub fn key_rules(&self) -> Option<&KeyRules> {
        self.keys.as_ref()
    }
}
