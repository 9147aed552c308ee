//! Redis: RESP2 and RESP3.

mod arguments;
mod categories;
mod command;
mod commands;
mod keys;
mod resp;
mod table;

pub use arguments::Arguments;
pub use categories::Categories;
pub use command::{Command, MASK, Values};
pub use keys::{Key, Keys, Untold};
pub use table::{CommandId, CommandTable, Known, builtin};
