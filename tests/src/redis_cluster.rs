//! A throw-away Redis Cluster of three masters on this machine.

use std::process::Command;

use crate::{
    places, process,
    redis::{Options, Redis},
    resp::Value,
    wait,
};

/// Masters of the cluster.
const NODES: usize = 3;

/// A running cluster; gone when dropped. Always of server binaries on this machine.
pub struct RedisCluster {
    /// The masters, in the order of their slots.
    pub nodes: Vec<Redis>,
}

impl RedisCluster {
    /// Starts the nodes, joins them, and waits until each one says that the cluster is whole.
    pub fn start() -> RedisCluster {
        RedisCluster::start_with(Options::open())
    }

    /// The same with further settings for every node.
    pub fn start_with(options: Options) -> RedisCluster {
        assert!(places::redis_server().is_some(), "a Redis Cluster for tests: apt-get install redis-server");
        let mut members = Vec::new();
        let mut nodes = Vec::new();
        for _ in 0..NODES {
            let (port, bus) = (places::free_port(), places::free_port());
            let settings = options
                .clone()
                .port(port)
                .setting(&["cluster-enabled", "yes"])
                .setting(&["cluster-port", &bus.to_string()])
                .setting(&["cluster-node-timeout", "2000"])
                .setting(&["cluster-require-full-coverage", "no"]);
            nodes.push(Redis::start(settings));
            members.push(format!("127.0.0.1:{port}@{bus}"));
        }
        let create = ["--cluster", "create"];
        process::run(Command::new(places::redis_tool("redis-cli")).args(create).args(&members).arg("--cluster-yes"))
            .ok();
        let cluster = RedisCluster { nodes };
        wait::until_true("the cluster to be whole", wait::SOON, || {
            let whole = |node: &Redis| {
                let info = node.say("CLUSTER INFO").text();
                info.contains("cluster_state:ok") && info.contains("cluster_slots_ok:16384")
            };
            cluster.nodes.iter().all(whole)
        });
        cluster
    }

    /// `redis://HOST:PORT?mode=cluster` of the first node.
    pub fn uri(&self) -> String {
        format!("{}?mode=cluster", self.nodes[0].uri())
    }

    /// The node that owns the slot of `key`.
    pub fn owner(&self, key: &str) -> &Redis {
        &self.nodes[self.owner_index(key)]
    }

    /// Index of the node that owns the slot of `key`.
    pub fn owner_index(&self, key: &str) -> usize {
        let Value::Integer(slot) = self.nodes[0].say(&format!("CLUSTER KEYSLOT {key}")) else { panic!("no slot") };
        let slots = self.nodes[0].say("CLUSTER SLOTS");
        let owns = |range: &&Value| matches!(range.items(), [Value::Integer(a), Value::Integer(b), ..] if (*a..=*b).contains(&slot));
        let owner = slots.items().iter().find(owns).expect("every slot has an owner");
        let port = owner.items()[2].items()[1].text();
        self.nodes.iter().position(|n| n.port.to_string() == port).expect("the owner is one of ours")
    }

    /// A key for each node, in the order of the nodes: `k0`, `k1`, ...
    pub fn one_key_for_each(&self) -> Vec<String> {
        let mut found = vec![None; self.nodes.len()];
        for n in 0.. {
            let key = format!("k{n}");
            found[self.owner_index(&key)].get_or_insert(key);
            if found.iter().all(Option::is_some) {
                break;
            }
        }
        found.into_iter().flatten().collect()
    }
}
