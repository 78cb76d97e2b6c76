//! How times and enumerated values are written.

use prost_types::Timestamp;

use tipserve_api::v1;

/// RFC 3339 in UTC; none if the time is absent or beyond the calendar.
pub(crate) fn time(timestamp: Option<Timestamp>) -> Option<String> {
    let timestamp = timestamp?;
    let nanos = u32::try_from(timestamp.nanos).ok()?;
    let moment = chrono::DateTime::from_timestamp(timestamp.seconds, nanos)?;
    Some(moment.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
}

/// "METHOD_TIP_ADAPTER" as "tip_adapter"; a number that a newer server may
/// send as "method_9".
pub(crate) fn method_name(method: i32) -> String {
    match v1::Method::try_from(method) {
        Ok(method) => short(method.as_str_name(), "METHOD_"),
        Err(_) => format!("method_{method}"),
    }
}

pub(crate) fn short(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_times_are_rfc3339() {
        assert_eq!(method_name(v1::Method::TipAdapterF as i32), "tip_adapter_f");
        assert_eq!(method_name(99), "method_99");
        let at = Timestamp {
            seconds: 1_700_000_000,
            nanos: 500_000_000,
        };
        assert_eq!(time(Some(at)).as_deref(), Some("2023-11-14T22:13:20.500Z"));
        assert_eq!(time(None), None);
    }
}
