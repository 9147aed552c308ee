//! Command categories, by the names that the server's ACL gives them.

/// A set of ACL categories.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Categories(u32);

macro_rules! categories {
    ($($name:ident $bit:literal),* $(,)?) => { $(pub(super) const $name: u32 = 1 << $bit;)* };
}

categories! {
    KEYSPACE 0, READ 1, WRITE 2, SET 3, SORTEDSET 4, LIST 5, HASH 6, STRING 7, BITMAP 8, HYPERLOGLOG 9, GEO 10,
    STREAM 11, PUBSUB 12, ADMIN 13, FAST 14, SLOW 15, BLOCKING 16, DANGEROUS 17, CONNECTION 18, TRANSACTION 19,
    SCRIPTING 20,
}

/// The word of each bit, in order: those above, then those of the modules that Redis 8 brings.
const WORDS: &[&str] = &[
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
    "search",
    "tdigest",
    "cms",
    "bloom",
    "cuckoo",
    "topk",
    "timeseries",
    "json",
];

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
