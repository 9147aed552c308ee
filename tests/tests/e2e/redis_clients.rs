//! Real clients in other languages: redis-py by tiny steps under `tests/drivers/`, and the `redis` crate, which sends
//! everything of a process through one connection.

use redis::{
    AsyncCommands, AsyncConnectionConfig, ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo,
    aio::MultiplexedConnection,
};
use ringgate_tests::{Driver, db_config::DbConfig, on_both_drivers, tls};

on_both_drivers!(
    redis_py_runs_the_everyday_commands,
    redis_py_pipelines_ten_thousand_commands,
    redis_py_runs_transactions,
    redis_py_subscribes,
    redis_py_subscribes_to_shards,
    redis_py_blocks,
    redis_py_runs_scripts_and_functions,
    redis_py_connects_again,
    redis_py_sees_what_a_role_denies,
    the_redis_crate_multiplexes,
    the_redis_crate_pipelines_and_transacts,
    the_redis_crate_hears_pushes,
);

/// One step of the driver in both versions of the protocol.
fn redis_py(driver: Driver, step: &str, says: &str) {
    let (server, gateway, db) = super::cached(driver);
    for protocol in ["2", "3"] {
        assert_eq!(db.redis_py(&[step, protocol]), says, "RESP{protocol}");
        server.say("FLUSHALL");
    }
    gateway.finish();
}

fn redis_py_runs_the_everyday_commands(driver: Driver) {
    let says = "value [('a', '1'), ('b', '2')] ['0', '1', '2', '3', '4'] [('one', 1.0), ('two', 2.5)] True 41";
    redis_py(driver, "basics", says);
}

fn redis_py_pipelines_ten_thousand_commands(driver: Driver) {
    redis_py(driver, "pipeline", "10000 49995000 True");
}

fn redis_py_runs_transactions(driver: Driver) {
    redis_py(driver, "transaction", "[True, 2, '2'] WatchError 10 ResponseError 1");
}

fn redis_py_subscribes(driver: Driver) {
    let kinds = "['subscribe', 'psubscribe', 'unsubscribe', 'punsubscribe']";
    redis_py(driver, "pubsub", &format!("2 {kinds} [('message', 'hello'), ('pmessage', 'hello')] True True"));
}

fn redis_py_subscribes_to_shards(driver: Driver) {
    redis_py(driver, "sharded", "ssubscribe smessage piece sunsubscribe");
}

fn redis_py_blocks(driver: Driver) {
    redis_py(driver, "blocking", "['queue', 'job'] None {'field': 'value'}");
}

fn redis_py_runs_scripts_and_functions(driver: Driver) {
    redis_py(driver, "scripts", "[10, 22] NoScriptError 42 [1, 2, [3]]");
}

fn redis_py_connects_again(driver: Driver) {
    redis_py(driver, "reconnects", "(True, 'named') None True");
}

fn redis_py_sees_what_a_role_denies(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    gateway.deny("    db_commands: [FLUSHALL]\n");
    ringgate_tests::wait::until_true("the role to take effect", ringgate_tests::wait::SOON, || {
        db.redis(&["FLUSHALL"]).stdout.contains("NOPERM")
    });
    // The first tries ran.
    server.say("CONFIG RESETSTAT");
    for protocol in ["2", "3"] {
        let said = db.redis_py(&["denied", protocol]);
        // In a transaction the library shows the reason of the first refused command.
        let aborted = ["ExecAbortError", "NoPermissionError"]
            .map(|e| format!("True NoPermissionError 1 {e} NoPermissionError 1 None"));
        assert!(aborted.contains(&said), "RESP{protocol}: {said}");
    }
    assert_eq!(server.calls("flushall"), 0);
    gateway.finish();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

async fn connect(db: &DbConfig, protocol: ProtocolVersion, config: AsyncConnectionConfig) -> MultiplexedConnection {
    let stream = tls::stream(db).await.expect("TLS to the gateway");
    let info = RedisConnectionInfo::default().set_protocol(protocol);
    let (connection, task) = MultiplexedConnection::new_with_config(&info, stream, config).await.expect("a connection");
    tokio::spawn(task);
    connection
}

fn the_redis_crate_multiplexes(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    for protocol in [ProtocolVersion::RESP2, ProtocolVersion::RESP3] {
        server.say("FLUSHALL");
        runtime().block_on(async {
            let connection = connect(&db, protocol, AsyncConnectionConfig::new()).await;
            let tasks = (0..50).map(|task| {
                let mut connection = connection.clone();
                tokio::spawn(async move {
                    for n in 0..100 {
                        let key = format!("{task}:{n}");
                        let () = connection.set(&key, task * 1000 + n).await.expect("SET");
                        assert_eq!(connection.get::<_, i64>(&key).await.expect("GET"), task * 1000 + n);
                        let _: i64 = connection.incr("total", 1).await.expect("INCR");
                    }
                })
            });
            for task in tasks.collect::<Vec<_>>() {
                task.await.expect("a task");
            }
            let total: i64 = connection.clone().get("total").await.expect("GET");
            assert_eq!(total, 5000);
        });
    }
    gateway.finish();
}

fn the_redis_crate_pipelines_and_transacts(driver: Driver) {
    let (_server, gateway, db) = super::cached(driver);
    runtime().block_on(async {
        let mut connection = connect(&db, ProtocolVersion::RESP3, AsyncConnectionConfig::new()).await;
        let mut pipeline = redis::pipe();
        for n in 0..10_000 {
            pipeline.cmd("INCRBY").arg("sum").arg(n);
        }
        let sums: Vec<i64> = pipeline.query_async(&mut connection).await.expect("a pipeline");
        assert_eq!((sums.len(), sums.last()), (10_000, Some(&49_995_000)));
        let (old, new): (i64, i64) = redis::pipe()
            .atomic()
            .cmd("GET")
            .arg("sum")
            .cmd("INCR")
            .arg("sum")
            .query_async(&mut connection)
            .await
            .expect("a transaction");
        assert_eq!((old, new), (49_995_000, 49_995_001));
        let script = redis::Script::new("return redis.call('INCRBY', KEYS[1], ARGV[1])");
        let sum: i64 = script.key("sum").arg(9).invoke_async(&mut connection).await.expect("a script");
        assert_eq!(sum, 49_995_010);
        let wrong: redis::RedisResult<i64> = connection.lpush("sum", 1).await;
        assert_eq!(wrong.expect_err("a wrong type").code(), Some("WRONGTYPE"));
    });
    gateway.finish();
}

fn the_redis_crate_hears_pushes(driver: Driver) {
    let (server, gateway, db) = super::cached(driver);
    runtime().block_on(async {
        let (sender, mut pushes) = tokio::sync::mpsc::unbounded_channel::<PushInfo>();
        let config = AsyncConnectionConfig::new().set_push_sender(sender);
        let mut connection = connect(&db, ProtocolVersion::RESP3, config).await;
        connection.subscribe("news").await.expect("SUBSCRIBE");
        assert_eq!(pushes.recv().await.expect("a push").kind, PushKind::Subscribe);
        for n in 0..100 {
            let _: () = connection.set("ordinary", n).await.expect("SET");
            server.say(&format!("PUBLISH news {n}"));
        }
        for n in 0..100 {
            let push = pushes.recv().await.expect("a push");
            assert_eq!(push.kind, PushKind::Message);
            let text: String = redis::from_redis_value(push.data[1].clone()).expect("text");
            assert_eq!(text, n.to_string());
        }
        let last: i64 = connection.get("ordinary").await.expect("GET");
        assert_eq!(last, 99);
    });
    gateway.finish();
}
