//! What a node says when a command came to the wrong one.

use super::slot::Slot;
use super::topology::Address;

/// An error by which a cluster steers its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redirect {
    /// The slot belongs to another node for good.
    Moved {
        /// The slot.
        slot: Slot,
        /// Its owner; an empty host is that of the node which answered.
        to: Address,
    },
    /// This one command belongs to another node, after ASKING.
    Ask {
        /// That node; an empty host is that of the node which answered.
        to: Address,
    },
    /// The slot is on its way and the keys are not all in one place yet.
    TryAgain,
    /// The cluster does not serve this slot now.
    Down,
}

impl Redirect {
    /// Reads an error's text without its `-`; any other error is `None`.
    pub fn parse(error: &[u8]) -> Option<Redirect> {
        let text = std::str::from_utf8(error).ok()?;
        let mut words = text.split(' ');
        match words.next()? {
            "MOVED" => {
                let slot = Slot::parse(words.next()?.as_bytes())?;
                Some(Redirect::Moved { slot, to: Address::parse(words.next()?)? })
            }
            "ASK" => {
                words.next()?;
                Some(Redirect::Ask { to: Address::parse(words.next()?)? })
            }
            "TRYAGAIN" => Some(Redirect::TryAgain),
            "CLUSTERDOWN" => Some(Redirect::Down),
            _ => None,
        }
    }
}
