//! Command categories, by the names that the server's ACL gives them.

/// A set of ACL categories.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Categories(u32);

macro_rules! categories {
    ($($name:ident $word:literal $bit:literal),* $(,)?) => {
        $(pub(super) const $name: u32 = 1 << $bit;)*
        /// The word of each bit, in order.
        const WORDS: &[&str] = &[$($word),*];
    };
}

categories! {
    KEYSPACE "keyspace" 0, READ "read" 1, WRITE "write" 2, SET "set" 3, SORTEDSET "sortedset" 4, LIST "list" 5,
    HASH "hash" 6, STRING "string" 7, BITMAP "bitmap" 8, HYPERLOGLOG "hyperloglog" 9, GEO "geo" 10,
    STREAM "stream" 11, PUBSUB "pubsub" 12, ADMIN "admin" 13, FAST "fast" 14, SLOW "slow" 15,
    BLOCKING "blocking" 16, DANGEROUS "dangerous" 17, CONNECTION "connection" 18, TRANSACTION "transaction" 19,
    SCRIPTING "scripting" 20, SEARCH "search" 21, TDIGEST "tdigest" 22, CMS "cms" 23, BLOOM "bloom" 24,
    CUCKOO "cuckoo" 25, TOPK "topk" 26, TIMESERIES "timeseries" 27, JSON "json" 28,
}

impl Categories {
    /// No category.
    pub const NONE: Categories = Categories(0);

    pub(super) const fn of(bits: u32) -> Categories {
        Categories(bits)
    }

    /// The set as bits; bit `n` stands for the `n`th of [`Categories::all`].
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Every category with its word, without `@`.
    pub fn all() -> impl Iterator<Item = (Categories, &'static str)> {
        WORDS.iter().enumerate().map(|(bit, word)| (Categories(1 << bit), *word))
    }

    /// The category that is called `word`, without `@`, in any case.
    pub fn named(word: &[u8]) -> Option<Categories> {
        Categories::all().find(|(_, known)| known.as_bytes().eq_ignore_ascii_case(word)).map(|(category, _)| category)
    }

    /// The words of the set, without `@`.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        Categories::all().filter(move |(category, _)| self.contains(*category)).map(|(_, word)| word)
    }

    /// Whether every category of `other` is in the set.
    pub const fn contains(self, other: Categories) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Categories) -> Categories {
        Categories(self.0 | other.0)
    }
}

impl std::fmt::Debug for Categories {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.words()).finish()
    }
}
