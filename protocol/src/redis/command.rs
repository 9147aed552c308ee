//! One command as policy and audit see it.

use super::arguments::Arguments;
use super::categories::Categories;
use super::keys::Keys;
use super::table::{CommandId, Found, Special};

/// What stands in the place of a secret argument.
pub const MASK: &[u8] = b"***";

/// A command in place: nothing of it is copied.
#[derive(Clone, Copy)]
pub struct Command<'a> {
    pub(super) name: &'a str,
    pub(super) found: Found<'a>,
    pub(super) arguments: Arguments<'a>,
    /// Arguments of the whole command, its name included.
    pub(super) count: u32,
    /// Bytes of the arguments behind the name whose lengths were seen.
    pub(super) bytes: u64,
}

impl<'a> Command<'a> {
    /// The name in upper case, with `|` before a sub-command: `GET`, `CONFIG|SET`. Empty for an unknown name that is
    /// longer than 64 bytes or not printable ASCII: such a one is never forwarded.
    pub const fn name(&self) -> &'a str {
        self.name
    }

    /// The name without the sub-command, and the sub-command or nothing.
    pub fn name_and_sub(&self) -> (&'a str, &'a str) {
        self.name.split_once('|').unwrap_or((self.name, ""))
    }

    /// The place in [`builtin`](super::builtin), for commands that stand there.
    pub const fn id(&self) -> Option<CommandId> {
        self.found.id
    }

    /// Its ACL categories; none for an unknown command.
    pub const fn categories(&self) -> Categories {
        self.found.categories
    }

    /// It stands in our table or in the server's.
    pub const fn is_known(&self) -> bool {
        self.found.known
    }

    /// The right that has to be named in a role for it: `replication`, `monitor`, `outbound`.
    pub const fn right(&self) -> Option<&'static str> {
        self.found.right
    }

    /// The keys, as far as they can be told.
    pub fn keys(&self) -> Keys<'a> {
        Keys::new(self.found.keys, self.arguments, self.count, self.found.special)
    }

    /// How many arguments stand behind the name. A sub-command is one of them.
    pub const fn arguments(&self) -> u32 {
        self.count.saturating_sub(1)
    }

    /// Bytes of these arguments, as far as their lengths were seen when the command was ruled on.
    pub const fn argument_bytes(&self) -> u64 {
        self.bytes
    }

    /// The arguments behind the name that are at hand, unmasked. Never for a record.
    pub fn raw(&self) -> Arguments<'a> {
        let mut arguments = self.arguments;
        arguments.next();
        arguments
    }

    /// The arguments behind the name that are at hand, with [`MASK`] in the place of secrets. Of a command that
    /// neither our table nor the server's has, any of them may be one: all are masked.
    pub fn values(&self) -> Values<'a> {
        let is_known = self.found.known;
        Values { arguments: self.raw(), index: 0, is_known, special: self.found.special, previous: b"", before: b"" }
    }

    /// Not every argument is at hand: the command is longer than what is looked at.
    pub const fn is_cut(&self) -> bool {
        (self.arguments.len() as u64) < self.count as u64
    }
}

impl std::fmt::Debug for Command<'_> {
    /// Shows no value.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Command")
            .field("name", &self.name)
            .field("known", &self.found.known)
            .field("arguments", &self.arguments())
            .field("bytes", &self.bytes)
            .field("cut", &self.is_cut())
            .finish_non_exhaustive()
    }
}

/// The arguments of a command with its secrets masked: see [`Command::values`].
#[derive(Clone, Debug)]
pub struct Values<'a> {
    arguments: Arguments<'a>,
    index: u32,
    is_known: bool,
    special: Special,
    previous: &'a [u8],
    before: &'a [u8],
}

impl<'a> Iterator for Values<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let value = self.arguments.next()?;
        let secret = self.is_secret(value);
        self.before = std::mem::replace(&mut self.previous, value);
        self.index += 1;
        Some(if secret { MASK } else { value })
    }
}

impl Values<'_> {
    /// Masks rather too much than too little: a word that may introduce a secret always does.
    fn is_secret(&self, value: &[u8]) -> bool {
        let after = |word: &[u8]| self.previous.eq_ignore_ascii_case(word);
        if !self.is_known {
            return true;
        }
        match self.special {
            // `AUTH user password`, `AUTH password`, and whatever else was meant to be one.
            Special::Auth => self.index > 0 || self.arguments.is_empty(),
            // `HELLO 3 AUTH user password`.
            Special::Hello => self.before.eq_ignore_ascii_case(b"AUTH"),
            // `... AUTH password`, `... AUTH2 user password`.
            Special::Migrate => after(b"AUTH") || after(b"AUTH2") || self.before.eq_ignore_ascii_case(b"AUTH2"),
            Special::AclSetuser => self.index > 1 && matches!(value.first(), Some(b'>' | b'<' | b'#' | b'!')),
            Special::ConfigSet => {
                [&b"requirepass"[..], b"masterauth", b"masteruser", b"tls-key-file-pass", b"tls-client-key-file-pass"]
                    .iter()
                    .any(|name| after(name))
            }
            // `SENTINEL SET name option value ...`, `SENTINEL CONFIG SET option value ...`.
            Special::SentinelSet => {
                [&b"auth-pass"[..], b"auth-user", b"sentinel-pass", b"sentinel-user", b"requirepass"]
                    .iter()
                    .any(|name| after(name))
            }
            // What stands behind the path is the module's own.
            Special::ModuleLoad => self.index > 1,
            _ => false,
        }
    }
}
