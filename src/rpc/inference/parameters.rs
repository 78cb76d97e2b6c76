//! A request's `parameters`, as Triton reads them: `priority` and `timeout`
//! count, names that begin with `triton_` are reserved, the rest is ignored.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::rpc::request::RequestError;
use tipserve_api::inference::{InferParameter, infer_parameter::ParameterChoice};
use tipserve_engine::Priority;

/// A request's parameters, by name.
pub type Parameters = HashMap<String, InferParameter>;

/// How many levels of priority there are; 1 is the highest.
pub const PRIORITY_LEVELS: u64 = 2;
/// Reserved by Triton for its own.
const RESERVED: &str = "triton_";
/// The one of Triton's own parameters that its clients send: every request has
/// one answer, and an answer on a stream says that it is the last.
const FINAL_RESPONSE: &str = "triton_enable_empty_final_response";

/// How a request is to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheduling {
    /// How urgent it is: `priority`, else that of the call.
    pub priority: Priority,
    /// When its answer is of no more use: at its own `timeout` or the call's
    /// deadline, whichever is first.
    pub deadline: Option<Instant>,
    /// Whether it has a `timeout` of its own.
    pub has_timeout: bool,
}

impl Scheduling {
    /// Reads a request's parameters.
    ///
    /// # Errors
    /// Reserved names, and values that are not numbers.
    pub fn read(
        parameters: &Parameters,
        call: Option<Instant>,
        now: Instant,
    ) -> Result<Scheduling, RequestError> {
        let reserved = |name: &&String| name.starts_with(RESERVED) && *name != FINAL_RESPONSE;
        if let Some(name) = parameters.keys().find(reserved) {
            return Err(RequestError::invalid(
                field(name),
                "names that begin with triton_ are reserved",
            ));
        }
        // The first level is interactive, and so is a request that names none.
        let priority = match whole(parameters, "priority")? {
            None | Some(0 | 1) => Priority::Interactive,
            Some(_) => Priority::Bulk,
        };
        let timeout = whole(parameters, "timeout")?.filter(|micros| *micros > 0);
        let own = timeout.and_then(|micros| now.checked_add(Duration::from_micros(micros)));
        Ok(Scheduling {
            priority,
            deadline: match (own, call) {
                (Some(own), Some(call)) => Some(own.min(call)),
                (own, call) => own.or(call),
            },
            has_timeout: timeout.is_some(),
        })
    }
}

fn field(name: &str) -> String {
    format!("parameters.{name}")
}

/// A whole number from 0, if the parameter is present.
///
/// # Errors
/// If it is something else.
pub fn whole(parameters: &Parameters, name: &str) -> Result<Option<u64>, RequestError> {
    let Some(parameter) = parameters.get(name) else {
        return Ok(None);
    };
    let number = match &parameter.parameter_choice {
        Some(ParameterChoice::Uint64Param(number)) => Ok(*number),
        Some(ParameterChoice::Int64Param(number)) => {
            u64::try_from(*number).map_err(|_| format!("{number} is negative"))
        }
        _ => Err("it must be an int64_param or a uint64_param".to_owned()),
    };
    number
        .map(Some)
        .map_err(|problem| RequestError::invalid(field(name), problem))
}

/// A number, if the parameter is present.
///
/// # Errors
/// If it is something else.
pub fn number(parameters: &Parameters, name: &str) -> Result<Option<f64>, RequestError> {
    let Some(parameter) = parameters.get(name) else {
        return Ok(None);
    };
    match &parameter.parameter_choice {
        Some(ParameterChoice::DoubleParam(number)) => Ok(Some(*number)),
        Some(ParameterChoice::Int64Param(number)) => Ok(Some(*number as f64)),
        Some(ParameterChoice::Uint64Param(number)) => Ok(Some(*number as f64)),
        // Clients without double parameters, such as tritonclient, send this.
        Some(ParameterChoice::StringParam(text)) => text
            .parse()
            .map(Some)
            .map_err(|_| RequestError::invalid(field(name), format!("{text:?} is not a number"))),
        _ => Err(RequestError::invalid(field(name), "it must be a number")),
    }
}

/// Refuses tensors in shared memory.
///
/// # Errors
/// If there is one.
pub fn no_shared_memory(parameters: &Parameters) -> Result<(), RequestError> {
    if parameters
        .keys()
        .any(|name| name.starts_with("shared_memory_"))
    {
        return Err(RequestError::NotOffered {
            what: super::SHARED_MEMORY,
            instead: super::SEND_TENSORS,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, choice: ParameterChoice) -> Result<Scheduling, RequestError> {
        let parameter = InferParameter {
            parameter_choice: Some(choice),
        };
        let now = Instant::now();
        Scheduling::read(&[(name.to_owned(), parameter)].into(), None, now)
    }

    #[test]
    fn one_is_the_highest_priority_and_two_the_lowest() {
        let priority = |number| {
            read("priority", ParameterChoice::Uint64Param(number))
                .expect("a priority")
                .priority
        };
        assert_eq!([0, 1].map(priority), [Priority::Interactive; 2]);
        assert_eq!([2, 3, 1 << 40].map(priority), [Priority::Bulk; 3]);
    }

    #[test]
    fn the_earlier_of_timeout_and_deadline_counts() {
        let now = Instant::now();
        let timeout = |micros| {
            let parameter = InferParameter {
                parameter_choice: Some(ParameterChoice::Int64Param(micros)),
            };
            let call = Some(now + Duration::from_millis(1));
            let scheduling =
                Scheduling::read(&[("timeout".to_owned(), parameter)].into(), call, now)
                    .expect("a timeout");
            scheduling.deadline.map(|at| at - now)
        };
        assert_eq!(timeout(500), Some(Duration::from_micros(500)));
        assert_eq!(timeout(5000), Some(Duration::from_millis(1)));
        assert_eq!(timeout(0), Some(Duration::from_millis(1)));
        assert_eq!(timeout(i64::MAX), Some(Duration::from_millis(1)));
    }

    #[test]
    fn what_is_unknown_passes_and_what_is_reserved_does_not() {
        assert!(read("colour", ParameterChoice::StringParam("red".to_owned())).is_ok());
        assert!(read(FINAL_RESPONSE, ParameterChoice::BoolParam(true)).is_ok());
        for (name, choice) in [
            ("triton_x", ParameterChoice::BoolParam(true)),
            ("priority", ParameterChoice::Int64Param(-1)),
            ("timeout", ParameterChoice::StringParam("5".to_owned())),
        ] {
            let error = read(name, choice).expect_err("refused").to_string();
            assert!(
                error.starts_with(&format!("parameters.{name}: ")),
                "{error}"
            );
        }
    }
}
