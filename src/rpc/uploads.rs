//! A bound on what calls have been sent and not stored yet: features of
//! CreateCache, AddExamples and SuggestExamples, files of ImportVersion. Each
//! call has a limit of its own; this is theirs together.
//!
//! A call counts what it takes as it comes, and is refused when there is no
//! more: if it waited, calls that wait for each other would keep what they have
//! for ever.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tonic::Code;

use super::{error::ApiError, request::RequestError};
use crate::auth::Caller;

/// When to try again after a refusal: uploads take a while.
const RETRY: Duration = Duration::from_secs(5);

/// The bytes that all uploads may take.
#[derive(Debug)]
pub struct UploadBudget {
    all: usize,
    /// Of one caller.
    half: usize,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    all: usize,
    callers: HashMap<String, usize>,
}

/// What one call has been sent; given back when dropped.
#[derive(Debug)]
pub struct Upload {
    budget: Arc<UploadBudget>,
    caller: Option<String>,
    bytes: usize,
}

impl UploadBudget {
    /// A budget of which one caller may have half, but never less than the
    /// largest upload.
    pub fn new(bytes: usize, largest: usize) -> Arc<UploadBudget> {
        Arc::new(UploadBudget {
            all: bytes.max(largest),
            half: (bytes / 2).max(largest),
            used: Mutex::default(),
        })
    }

    /// An upload of which nothing has come yet.
    pub fn begin(self: &Arc<Self>, caller: &Caller) -> Upload {
        Upload {
            budget: Arc::clone(self),
            caller: caller.quota(),
            bytes: 0,
        }
    }
}

impl Upload {
    /// Counts more bytes of it.
    ///
    /// # Errors
    /// BUSY if they are over the caller's half or the whole; LIMIT_EXCEEDED if
    /// this one upload would be.
    pub fn add(&mut self, bytes: usize) -> Result<(), ApiError> {
        let budget = &self.budget;
        let most = match self.caller {
            Some(_) => budget.half,
            None => budget.all,
        };
        let alone = self.bytes.saturating_add(bytes);
        RequestError::check("the upload (bytes)", "upload_bytes", most, alone)?;
        let mut used = budget.used.lock();
        let all = used.all.saturating_add(bytes);
        let own = self.caller.as_ref().map(|caller| {
            let own = used.callers.get(caller).copied().unwrap_or(0);
            (caller.clone(), own.saturating_add(bytes))
        });
        if all > budget.all {
            return Err(refused("the server's uploads", budget.all));
        }
        if let Some((caller, own)) = own {
            if own > budget.half {
                return Err(refused("one caller's uploads", budget.half));
            }
            used.callers.insert(caller, own);
        }
        used.all = all;
        self.bytes = alone;
        Ok(())
    }
}

fn refused(whose: &str, maximum: usize) -> ApiError {
    let message = format!(
        "{whose} under way would take more than {maximum} bytes, what the server's limit \
         upload_bytes leaves them"
    );
    ApiError::new(Code::ResourceExhausted, "BUSY", message)
        .fact("limit", "upload_bytes")
        .fact("maximum", maximum)
        .retry(RETRY)
}

impl Drop for Upload {
    fn drop(&mut self) {
        let mut used = self.budget.used.lock();
        used.all -= self.bytes;
        let Some(caller) = &self.caller else { return };
        if let Some(own) = used.callers.get_mut(caller) {
            *own -= self.bytes;
            if *own == 0 {
                used.callers.remove(caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Authenticator;

    fn caller(last: u8) -> Caller {
        let authenticator = Arc::new(Authenticator::open_to_all());
        let peer = std::net::SocketAddr::from(([192, 0, 2, last], 7));
        Caller::new(&authenticator, None, None, Some(peer), None)
    }

    #[test]
    fn one_caller_has_half_and_all_have_the_whole() {
        let budget = UploadBudget::new(100, 40);
        let begin = |last| budget.begin(&caller(last));
        let (mut first, mut second) = (begin(1), begin(1));
        first.add(30).expect("there is as much");
        second.add(20).expect("there is as much");
        let error = second.add(1).expect_err("over its half");
        assert_eq!(error.reason(), "BUSY");
        assert!(error.message().contains("one caller"), "{error:?}");
        let (mut other, mut third) = (begin(2), begin(3));
        other.add(45).expect("another's half");
        let error = third.add(6).expect_err("over the whole");
        assert!(
            error.message().contains("the server's uploads"),
            "{error:?}"
        );
        third.add(5).expect("what is left");
        // What was refused counts for nothing.
        drop(first);
        second.add(30).expect("given back");
        drop((second, other, third));
        let used = budget.used.lock();
        assert!(used.all == 0 && used.callers.is_empty());
    }

    #[test]
    fn the_largest_upload_always_fits_alone() {
        let budget = UploadBudget::new(1, 40);
        budget.begin(&caller(1)).add(40).expect("all of it");
        let mut nobody = budget.begin(&Caller::default());
        nobody.add(40).expect("no share, but the whole");
        let error = nobody.add(1).expect_err("more than there is at all");
        assert_eq!(error.reason(), "LIMIT_EXCEEDED");
    }
}
