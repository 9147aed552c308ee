//! Which keys the commands of a session may name: `db_keys` (access-model 5.8).

mod glob;
mod rules;

pub(crate) use glob::KeyGlob;
pub use rules::KeyRules;
