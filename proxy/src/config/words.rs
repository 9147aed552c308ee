//! The closed sets of words a configuration may hold.

macro_rules! words {
    ($(#[$outer:meta])* $name:ident { $($(#[$inner:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name { $($(#[$inner])* $variant),+ }

        impl $name {
            /// Every word with its meaning.
            pub(crate) const WORDS: &'static [(&'static str, $name)] = &[$(($word, $name::$variant)),+];

            /// The word in the file.
            pub(crate) fn word(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }
        }
    };
}

words! {
    /// How workers talk to the kernel.
    Driver {
        /// io_uring where the kernel allows it, else epoll.
        Auto = "auto",
        /// io_uring or no start.
        IoUring = "io_uring",
        /// epoll.
        Epoll = "epoll",
    }
}

words! {
    /// Set-up flags of a ring (performance-notes 2.3).
    RingMode {
        /// `coop` where the kernel has it.
        Auto = "auto",
        /// Cooperative task running.
        Coop = "coop",
        /// Deferred task running, kernel 6.1 and later.
        Defer = "defer",
        /// No flags.
        Plain = "plain",
    }
}

words! {
    /// Oldest TLS version spoken with clients.
    TlsVersion {
        /// TLS 1.2.
        V12 = "1.2",
        /// TLS 1.3.
        V13 = "1.3",
    }
}

words! {
    /// A key exchange group.
    KeyExchange {
        /// Hybrid of X25519 and ML-KEM 768.
        X25519MlKem768 = "X25519MLKEM768",
        /// X25519.
        X25519 = "X25519",
        /// NIST P-256.
        P256 = "P-256",
        /// NIST P-384.
        P384 = "P-384",
    }
}

words! {
    /// What becomes of live sessions when a role changes (access-model 2.4).
    OnAccessChange {
        /// They keep the decision they were opened with.
        Keep = "keep",
        /// They are ruled on again; those that lost access end within a second.
        End = "end",
    }
}

words! {
    /// What happens when audit records cannot be kept (design section 5).
    AuditMode {
        /// A full ring holds clients back; a broken sink refuses new statements.
        Strict = "strict",
        /// As strict, and a statement is forwarded only after its record is on disk.
        Durable = "durable",
        /// Drops and writes a gap record.
        BestEffort = "best_effort",
    }
}

words! {
    /// How statement text is kept.
    QueryText {
        /// As sent, up to the limit.
        Full = "full",
        /// Only its hash and length.
        Hashed = "hashed",
        /// Not at all.
        Off = "off",
    }
}

words! {
    /// How bound values are kept.
    ParameterPolicy {
        /// As sent.
        Full = "full",
        /// Only their types.
        Types = "types",
        /// Not at all.
        None = "none",
    }
}

words! {
    /// How much of a Redis command's arguments is kept.
    RedisArguments {
        /// The command's name, and count and size of its arguments.
        Names = "names",
        /// Its keys too.
        Keys = "keys",
        /// Its values too.
        Full = "full",
    }
}

words! {
    /// How log lines look.
    LogFormat {
        /// One JSON object per line.
        Json = "json",
        /// For people.
        Text = "text",
    }
}

/// Which CPUs workers are bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pin {
    /// Bound when there is a worker for every allowed CPU.
    Auto,
    /// Bound, one CPU each.
    On,
    /// Not bound.
    Off,
    /// Bound to these CPUs in turn.
    List(Vec<usize>),
}
