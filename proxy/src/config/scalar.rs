//! The written forms of single values: durations, sizes, rates, addresses, switches.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

/// `10s`, `1h30m`, `250ms`, `7d`, `0s`. A bare number has no unit and is refused.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration (write 250ms, 10s, 1h30m or 7d)");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let count: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit_ns: u64 = match &rest[..letters] {
            "us" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            _ => return Err(wrong()),
        };
        rest = &rest[letters..];
        let part = count.checked_mul(unit_ns).map(Duration::from_nanos).ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
    }
    Ok(total)
}

/// `64KiB`, `1MiB`, `1GiB`, `48MB`, `512B` or a bare number of bytes.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    let wrong = || format!("`{text}` is not a size (write 4096, 64KiB, 1MiB or 1GiB)");
    let text_trimmed = text.trim();
    let digits = text_trimmed.bytes().take_while(u8::is_ascii_digit).count();
    let count: usize = text_trimmed[..digits].parse().map_err(|_| wrong())?;
    let unit: usize = match text_trimmed[digits..].trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return Err(wrong()),
    };
    count.checked_mul(unit).ok_or_else(wrong)
}

/// How often something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Times per [`Rate::per`].
    pub count: u32,
    /// The period, not zero.
    pub per: Duration,
}

impl Rate {
    /// Times per second, rounded up.
    pub(crate) fn per_second(self) -> u32 {
        let seconds = u32::try_from(self.per.as_secs()).unwrap_or(u32::MAX).max(1);
        self.count.div_ceil(seconds)
    }
}

/// `20/s`, `100/m`, `1000/h`.
pub(crate) fn rate(text: &str) -> Result<Rate, String> {
    let wrong = || format!("`{text}` is not a rate (write 20/s, 100/m or 1000/h)");
    let (count, per) = text.split_once('/').ok_or_else(wrong)?;
    let count = count.trim().parse().map_err(|_| wrong())?;
    let per = match per.trim() {
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        _ => return Err(wrong()),
    };
    Ok(Rate { count, per })
}

/// `true` or `false`; `yes` and `no` only where the seed format needs strings.
pub(crate) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("`{text}` is not true or false")),
    }
}

/// A whole number between `low` and `high`.
pub(crate) fn number(text: &str, low: u64, high: u64) -> Result<u64, String> {
    match text.parse::<u64>() {
        Ok(value) if (low..=high).contains(&value) => Ok(value),
        Ok(value) => Err(format!("{value} is outside {low} to {high}")),
        Err(_) => Err(format!("`{text}` is not a whole number")),
    }
}

/// `127.0.0.1:5432`, `[::1]:5432`, `localhost:5432`, `:5432` (every address). Port 0 takes a free port.
pub(crate) fn socket(text: &str) -> Result<SocketAddr, String> {
    let wrong = || format!("`{text}` is not an address with a port (write 127.0.0.1:5432 or [::1]:5432)");
    if let Some(port) = text.strip_prefix(':') {
        return port.parse().map(|port: u16| SocketAddr::from(([0, 0, 0, 0], port))).map_err(|_| wrong());
    }
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    match text.strip_prefix("localhost:").map(str::parse::<u16>) {
        Some(Ok(port)) => Ok(SocketAddr::from(([127, 0, 0, 1], port))),
        _ => Err(wrong()),
    }
}

/// Resolves `host:port` to its first address, for places where a name is allowed.
pub(crate) fn resolve(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = socket(text) {
        return Ok(address);
    }
    text.to_socket_addrs()
        .map_err(|e| format!("cannot resolve `{text}`: {e}"))?
        .next()
        .ok_or_else(|| format!("`{text}` has no address"))
}

/// Where to listen: a TCP address or a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    /// Address and port; port 0 takes a free one.
    Tcp(SocketAddr),
    /// Absolute path of a socket.
    Unix(PathBuf),
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Listen::Tcp(address) => write!(f, "{address}"),
            Listen::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// `127.0.0.1:5432`, `unix:///path` or `/path`.
pub(crate) fn listen(text: &str) -> Result<Listen, String> {
    let path = text.strip_prefix("unix://").or_else(|| text.starts_with('/').then_some(text));
    match path {
        Some(path) if path.starts_with('/') => Ok(Listen::Unix(PathBuf::from(path))),
        Some(_) => Err(format!("`{text}` is not an absolute socket path (write unix:///run/name.sock)")),
        None => socket(text).map(Listen::Tcp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_and_do_not_overflow() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for wrong in ["", "10", "s", "10x", "1.5s", "-1s", "99999999999999999d", "1h 30m"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_binary_or_decimal_and_do_not_overflow() {
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("48MB"), Ok(48_000_000));
        assert_eq!(size("4096"), Ok(4096));
        for wrong in ["", "KiB", "64kb", "1e3", "-1", "99999999999999999999", "18446744073709551615GiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses_need_a_port() {
        assert_eq!(socket("localhost:1"), Ok(SocketAddr::from(([127, 0, 0, 1], 1))));
        assert_eq!(socket(":1"), Ok(SocketAddr::from(([0, 0, 0, 0], 1))));
        assert!(socket("[::1]:5432").is_ok());
        for wrong in ["", "127.0.0.1", "db.example.com:1", "1.2.3.4:70000", "::1:5432x"] {
            assert!(socket(wrong).is_err(), "{wrong}");
        }
    }
}
