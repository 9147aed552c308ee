//! The arguments of a command, read in place from its array of bulk strings.

use super::resp;

/// The arguments of one command, its name included, as far as they are at hand. Copies nothing; made only over
/// bytes whose heads were read before.
#[derive(Clone, Copy, Default)]
pub struct Arguments<'a> {
    /// From the first bulk head on.
    rest: &'a [u8],
    /// Arguments that are whole in `rest`.
    whole: u32,
}

impl<'a> Arguments<'a> {
    /// `whole` arguments that begin at the front of `rest`.
    pub(super) const fn new(rest: &'a [u8], whole: u32) -> Self {
        Arguments { rest, whole }
    }

    /// How many are at hand.
    pub const fn len(&self) -> usize {
        self.whole as usize
    }

    /// Whether none is at hand.
    pub const fn is_empty(&self) -> bool {
        self.whole == 0
    }

    /// The one at `index`, if it is at hand.
    pub fn get(mut self, index: usize) -> Option<&'a [u8]> {
        self.nth(index)
    }
}

impl std::fmt::Debug for Arguments<'_> {
    /// Shows no value.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arguments").field("whole", &self.whole).finish_non_exhaustive()
    }
}

impl<'a> Iterator for Arguments<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.whole == 0 {
            return None;
        }
        let (len, head) = resp::bulk_head(self.rest)?;
        let body = self.rest.get(head..head + len)?;
        self.rest = self.rest.get(head + len + 2..).unwrap_or_default();
        self.whole -= 1;
        Some(body)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.len()))
    }
}
