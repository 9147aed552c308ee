//! The class of a statement for the audit (`query_type`, `db_audit`). Never used for a verdict.

/// The first keyword's class, or empty when it is not certain: comments in front, several statements, an unknown
/// word.
pub fn query_type(text: &[u8]) -> &'static str {
    let text = text.trim_ascii_start();
    let end = text.iter().position(|b| !b.is_ascii_alphabetic()).unwrap_or(text.len());
    if end == 0 || end > 10 || has_second_statement(text) {
        return "";
    }
    let mut word = [0u8; 10];
    word[..end].copy_from_slice(&text[..end]);
    word.make_ascii_uppercase();
    match &word[..end] {
        b"SELECT" | b"TABLE" | b"VALUES" => "SELECT",
        b"INSERT" => "INSERT",
        b"UPDATE" => "UPDATE",
        b"DELETE" => "DELETE",
        b"MERGE" => "MERGE",
        b"COPY" => "COPY",
        b"CREATE" | b"ALTER" | b"DROP" | b"TRUNCATE" | b"COMMENT" | b"REINDEX" => "DDL",
        b"GRANT" | b"REVOKE" => "DCL",
        b"BEGIN" | b"START" | b"COMMIT" | b"END" | b"ROLLBACK" | b"SAVEPOINT" | b"RELEASE" | b"ABORT" => "TRANSACTION",
        b"SET" | b"RESET" | b"SHOW" | b"DISCARD" => "SESSION",
        b"EXPLAIN" => "EXPLAIN",
        b"CALL" | b"DO" => "CALL",
        b"LISTEN" | b"NOTIFY" | b"UNLISTEN" => "NOTIFY",
        b"PREPARE" | b"EXECUTE" | b"DEALLOCATE" | b"DECLARE" | b"FETCH" | b"MOVE" | b"CLOSE" => "CURSOR",
        b"VACUUM" | b"ANALYZE" | b"CLUSTER" | b"CHECKPOINT" | b"LOCK" | b"REFRESH" => "MAINTENANCE",
        _ => "",
    }
}

/// Whether `query_type` is a change of data or of structure: what `db_audit.statements: ddl_dml` keeps. What is
/// not certain is kept.
pub fn is_ddl_or_dml(query_type: &str) -> bool {
    matches!(
        query_type,
        "" | "INSERT" | "UPDATE" | "DELETE" | "MERGE" | "COPY" | "DDL" | "DCL" | "CALL" | "CURSOR" | "EXPLAIN"
    )
}

/// A semicolon with anything behind it. One inside a literal is taken for a second statement too: uncertain is
/// all that follows from it.
fn has_second_statement(text: &[u8]) -> bool {
    memchr::memchr(b';', text).is_some_and(|at| !text[at + 1..].trim_ascii().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_class_of_the_first_keyword() {
        for (text, class) in [
            ("select 1", "SELECT"),
            ("  Insert into t values (1)", "INSERT"),
            ("drop table t;", "DDL"),
            ("drop table t;\n ", "DDL"),
            ("select 1; drop table t", ""),
            ("/* x */ select 1", ""),
            ("-- x\nselect 1", ""),
            ("(select 1)", ""),
            ("frobnicate", ""),
            ("", ""),
            ("verylongkeyword", ""),
        ] {
            assert_eq!(query_type(text.as_bytes()), class, "{text}");
        }
    }
}
