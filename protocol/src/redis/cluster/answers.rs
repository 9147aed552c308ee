//! What a client is told about the cluster: one node, the gateway, which owns every slot.

use super::slot::SLOTS;

/// The gateway as the one node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Node id: 40 hexadecimal digits, the same for every session of a database.
    pub id: String,
    /// Host as the client reached us; empty where that is not known, which clients read as "the host you asked".
    pub host: String,
    /// Port as the client reached us.
    pub port: u16,
    /// The client came with TLS.
    pub tls: bool,
    /// The client speaks RESP3.
    pub resp3: bool,
}

impl Gateway {
    /// `CLUSTER SLOTS`
    pub fn slots(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("*1\r\n*3\r\n:0\r\n:{}\r\n*4\r\n", SLOTS - 1).as_bytes());
        bulk(out, &self.host);
        out.extend_from_slice(format!(":{}\r\n", self.port).as_bytes());
        bulk(out, &self.id);
        out.extend_from_slice(b"*0\r\n");
    }

    /// `CLUSTER SHARDS`
    pub fn shards(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"*1\r\n");
        self.map(out, 2);
        bulk(out, "slots");
        out.extend_from_slice(format!("*2\r\n:0\r\n:{}\r\n", SLOTS - 1).as_bytes());
        bulk(out, "nodes");
        out.extend_from_slice(b"*1\r\n");
        self.map(out, 7);
        bulk(out, "id");
        bulk(out, &self.id);
        bulk(out, if self.tls { "tls-port" } else { "port" });
        out.extend_from_slice(format!(":{}\r\n", self.port).as_bytes());
        for (name, value) in [("ip", self.host.as_str()), ("endpoint", &self.host), ("role", "master")] {
            bulk(out, name);
            bulk(out, value);
        }
        bulk(out, "replication-offset");
        out.extend_from_slice(b":0\r\n");
        bulk(out, "health");
        bulk(out, "online");
    }

    /// `CLUSTER NODES`
    pub fn nodes(&self, out: &mut Vec<u8>) {
        let Gateway { id, host, port, .. } = self;
        let line = format!("{id} {host}:{port}@{port} myself,master - 0 0 1 connected 0-{}\n", SLOTS - 1);
        self.verbatim(out, &line);
    }

    /// `CLUSTER MYID`, and `CLUSTER MYSHARDID`
    pub fn my_id(&self, out: &mut Vec<u8>) {
        bulk(out, &self.id);
    }

    /// `CLUSTER INFO`, from the text that a node gave: its state, with one node in the place of all.
    pub fn info(&self, node: &[u8], out: &mut Vec<u8>) {
        let mut text = String::new();
        for line in String::from_utf8_lossy(node).lines() {
            let name = line.split(':').next().unwrap_or_default();
            match name {
                "cluster_known_nodes" | "cluster_size" => text.push_str(&format!("{name}:1\r\n")),
                // Of the links between the nodes, which a client of the gateway has no part in.
                _ if name.starts_with("cluster_stats_") => {}
                _ => text.push_str(&format!("{line}\r\n")),
            }
        }
        self.verbatim(out, &text);
    }

    fn map(&self, out: &mut Vec<u8>, entries: usize) {
        let head = if self.resp3 { format!("%{entries}\r\n") } else { format!("*{}\r\n", entries * 2) };
        out.extend_from_slice(head.as_bytes());
    }

    fn verbatim(&self, out: &mut Vec<u8>, text: &str) {
        verbatim(out, text.as_bytes(), self.resp3);
    }
}

/// A text for people: a verbatim string where the client knows them.
pub(super) fn verbatim(out: &mut Vec<u8>, text: &[u8], resp3: bool) {
    let head = if resp3 { format!("={}\r\ntxt:", text.len() + 4) } else { format!("${}\r\n", text.len()) };
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

fn bulk(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(format!("${}\r\n{text}\r\n", text.len()).as_bytes());
}
