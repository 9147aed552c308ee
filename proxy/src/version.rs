//! What `ringgate version` and `/version` say.

/// Version facts as JSON. `driver` is the running server's, where there is one.
pub fn json(driver: Option<&str>) -> serde_json::Value {
    serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "profile": if cfg!(debug_assertions) { "debug" } else { "release" },
        "tls_provider": "aws-lc-rs",
        "driver": driver,
        "protocols": ["postgres", "redis", "mysql"],
    })
}
