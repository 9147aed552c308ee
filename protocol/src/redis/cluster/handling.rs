//! What a cluster of one node to the eye asks of each command.

use super::merge::Merge;
use super::split::Split;

/// How a command is served. Those not named anywhere go to the owner of their keys, or without keys to any master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// To the owner of its keys; without keys to any master.
    Keyed,
    /// As above, but the key is a channel: the first argument.
    Channel,
    /// Cut where the keys are of several slots.
    Split(Split),
    /// To every master.
    Everywhere(Merge),
    /// To one master after the other, by the cursor.
    Scan,
    /// To masters until one has a key.
    RandomKey,
    /// To the master that was written to last.
    LastWritten,
    /// MULTI, EXEC, DISCARD, WATCH, UNWATCH.
    Transaction(Transaction),
    /// SUBSCRIBE and its kin, on a connection of their own.
    Subscription(Subscription),
    /// Answered with OK: one node owns everything, so there is nothing to switch.
    Nothing,
    /// SELECT: the one database there is, or an error.
    Select,
    /// To every connection there is, and to those opened later: CLIENT SETNAME, AUTH, HELLO.
    Connections,
    /// RESET: every connection begins anew.
    Reset,
    /// QUIT.
    Quit,
    /// Answered by what the gateway is.
    Cluster(Cluster),
    /// Cannot work over several nodes.
    Refused,
}

/// The commands of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transaction {
    /// MULTI
    Multi,
    /// EXEC
    Exec,
    /// DISCARD
    Discard,
    /// WATCH
    Watch,
    /// UNWATCH
    Unwatch,
}

/// The commands of subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// What is subscribed to.
    pub kind: SubscriptionKind,
    /// Begins (or ends) them.
    pub begins: bool,
}

/// What is subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriptionKind {
    /// SUBSCRIBE
    Channel,
    /// PSUBSCRIBE
    Pattern,
    /// SSUBSCRIBE: on the owner of the channel's slot.
    Shard,
}

/// The sub-commands of CLUSTER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cluster {
    /// SLOTS
    Slots,
    /// SHARDS
    Shards,
    /// NODES
    Nodes,
    /// MYID, MYSHARDID
    MyId,
    /// INFO, from a node's own
    Info,
    /// KEYSLOT
    KeySlot,
    /// COUNTKEYSINSLOT, GETKEYSINSLOT: to the owner of the slot that is the first argument.
    OfSlot,
    /// REPLICAS, SLAVES, LINKS: none
    NoReplicas,
}

impl Handling {
    /// By the canonical name: upper case, a sub-command behind `|`.
    pub fn of(name: &str) -> Handling {
        use Handling::{Everywhere, Refused};
        let (container, sub) = name.split_once('|').unwrap_or((name, ""));
        match container {
            "MGET" => Handling::Split(Split::Values),
            "MSET" => Handling::Split(Split::Pairs),
            "DEL" | "UNLINK" | "EXISTS" | "TOUCH" => Handling::Split(Split::Count),
            "DBSIZE" => Everywhere(Merge::Sum),
            "KEYS" => Everywhere(Merge::Concat),
            "FLUSHALL" | "FLUSHDB" | "SAVE" | "BGSAVE" | "BGREWRITEAOF" => Everywhere(Merge::Same),
            "INFO" => Everywhere(Merge::Sections),
            "SCAN" => Handling::Scan,
            "RANDOMKEY" => Handling::RandomKey,
            "WAIT" | "WAITAOF" => Handling::LastWritten,
            "SPUBLISH" => Handling::Channel,
            "MULTI" => Handling::Transaction(Transaction::Multi),
            "EXEC" => Handling::Transaction(Transaction::Exec),
            "DISCARD" => Handling::Transaction(Transaction::Discard),
            "WATCH" => Handling::Transaction(Transaction::Watch),
            "UNWATCH" => Handling::Transaction(Transaction::Unwatch),
            "SUBSCRIBE" => subscription(SubscriptionKind::Channel, true),
            "PSUBSCRIBE" => subscription(SubscriptionKind::Pattern, true),
            "SSUBSCRIBE" => subscription(SubscriptionKind::Shard, true),
            "UNSUBSCRIBE" => subscription(SubscriptionKind::Channel, false),
            "PUNSUBSCRIBE" => subscription(SubscriptionKind::Pattern, false),
            "SUNSUBSCRIBE" => subscription(SubscriptionKind::Shard, false),
            "READONLY" | "READWRITE" | "ASKING" => Handling::Nothing,
            "SELECT" => Handling::Select,
            "HELLO" | "AUTH" => Handling::Connections,
            "RESET" => Handling::Reset,
            "QUIT" => Handling::Quit,
            // Each needs one certain node, or a connection whose replies are not one for each command.
            "MONITOR" | "SYNC" | "PSYNC" | "REPLCONF" | "SHUTDOWN" | "FAILOVER" | "REPLICAOF" | "SLAVEOF" | "DEBUG"
            | "MODULE"
                if !matches!(sub, "LIST" | "HELP") =>
            {
                Refused
            }
            "SCRIPT" => match sub {
                "LOAD" | "FLUSH" => Everywhere(Merge::Same),
                "EXISTS" => Everywhere(Merge::Least),
                "KILL" => Everywhere(Merge::Any),
                "DEBUG" => Refused,
                _ => Handling::Keyed,
            },
            "FUNCTION" => match sub {
                "LOAD" | "DELETE" | "FLUSH" | "RESTORE" => Everywhere(Merge::Same),
                "KILL" => Everywhere(Merge::Any),
                _ => Handling::Keyed,
            },
            "CONFIG" => match sub {
                "GET" => Everywhere(Merge::Entries),
                "HELP" => Handling::Keyed,
                _ => Everywhere(Merge::Same),
            },
            "ACL" => match sub {
                "SETUSER" | "DELUSER" | "LOAD" | "SAVE" => Everywhere(Merge::Same),
                _ => Handling::Keyed,
            },
            "SLOWLOG" => match sub {
                "GET" => Everywhere(Merge::Concat),
                "LEN" => Everywhere(Merge::Sum),
                "RESET" => Everywhere(Merge::Same),
                _ => Handling::Keyed,
            },
            "MEMORY" => match sub {
                "DOCTOR" | "MALLOC-STATS" => Everywhere(Merge::Sections),
                "STATS" => Everywhere(Merge::Entries),
                "PURGE" => Everywhere(Merge::Same),
                _ => Handling::Keyed,
            },
            "LATENCY" => match sub {
                "DOCTOR" | "GRAPH" => Everywhere(Merge::Sections),
                "LATEST" | "HISTORY" => Everywhere(Merge::Concat),
                "HISTOGRAM" => Everywhere(Merge::Entries),
                "RESET" => Everywhere(Merge::Sum),
                _ => Handling::Keyed,
            },
            "PUBSUB" => match sub {
                "CHANNELS" | "SHARDCHANNELS" => Everywhere(Merge::Concat),
                "NUMPAT" => Everywhere(Merge::Sum),
                "NUMSUB" | "SHARDNUMSUB" => Everywhere(Merge::SumByName),
                _ => Handling::Keyed,
            },
            "CLIENT" => match sub {
                "SETNAME" | "SETINFO" | "NO-EVICT" | "NO-TOUCH" => Handling::Connections,
                "LIST" => Everywhere(Merge::Lines),
                "KILL" | "UNBLOCK" => Everywhere(Merge::Any),
                "PAUSE" | "UNPAUSE" => Everywhere(Merge::Same),
                "REPLY" | "TRACKING" | "CACHING" => Refused,
                _ => Handling::Keyed,
            },
            "CLUSTER" => match sub {
                "SLOTS" => Handling::Cluster(Cluster::Slots),
                "SHARDS" => Handling::Cluster(Cluster::Shards),
                "NODES" => Handling::Cluster(Cluster::Nodes),
                "MYID" | "MYSHARDID" => Handling::Cluster(Cluster::MyId),
                "INFO" => Handling::Cluster(Cluster::Info),
                "KEYSLOT" => Handling::Cluster(Cluster::KeySlot),
                "COUNTKEYSINSLOT" | "GETKEYSINSLOT" => Handling::Cluster(Cluster::OfSlot),
                "REPLICAS" | "SLAVES" | "LINKS" => Handling::Cluster(Cluster::NoReplicas),
                "HELP" => Handling::Keyed,
                _ => Refused,
            },
            _ => Handling::Keyed,
        }
    }

    /// Whether it may stand between MULTI and EXEC: it is for one node, and its reply is passed on as it is.
    pub const fn fits_transaction(self) -> bool {
        matches!(self, Handling::Keyed | Handling::Channel | Handling::Split(_) | Handling::Transaction(_))
    }
}

fn subscription(kind: SubscriptionKind, begins: bool) -> Handling {
    Handling::Subscription(Subscription { kind, begins })
}
