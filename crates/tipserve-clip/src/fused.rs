//! Replaces the loaded module by one whose weights are constants and whose
//! operators are fused.
//!
//! On CPUs it is quicker, above all for single pictures, whose operators are
//! short. It is used only if it proves itself when the server starts, as CUDA
//! graphs must: the same features, and sooner.

use std::{fmt, time::Instant};

use tch::{Kind, Tensor};

use super::{
    encode_error::EncodeError,
    graphs::{least_cosine, median},
    precision::Precision,
};

/// Sizes of the batches on which both must agree.
const SIZES: [usize; 2] = [1, 3];
/// Rounds of timing a single picture, both modules in turn.
const ROUNDS: usize = 5;
/// Rounds that tell enough where a picture takes so long that nothing else
/// that a machine does is noticed.
const LEAST_ROUNDS: usize = 2;
/// Seconds after which no further round begins.
const ENOUGH_SECONDS: f64 = 3.0;
/// The fused module is used only if it takes at most this share of the plain
/// time.
const WORTHWHILE: f64 = 0.98;

/// The least cosine of fused features to plain ones. In bfloat16 both are
/// rounded, at different places: by a thousandth of the distance between
/// features of unlike pictures.
pub fn least_cosine_of(precision: Precision) -> f64 {
    match precision {
        Precision::Float32 | Precision::Int8 => 0.99999,
        Precision::Bfloat16 | Precision::Float16 => 0.999,
    }
}

/// Whether the fused module is used, and why.
#[derive(Clone, Debug, PartialEq)]
pub enum Fusing {
    /// The fused module is used.
    Used {
        /// Seconds for a picture without it.
        plain: f64,
        /// Seconds for a picture with it.
        fused: f64,
    },
    /// The same features, but not sooner.
    NoQuicker {
        /// Seconds for a picture without it.
        plain: f64,
        /// Seconds for a picture with it.
        fused: f64,
    },
    /// Its features are not those of the plain module.
    Differs {
        /// The least cosine to the plain ones.
        cosine: f64,
    },
    /// torch could not make it, or it did not run.
    Refused {
        /// torch's reason, its first line.
        reason: String,
    },
}

impl fmt::Display for Fusing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |seconds: &f64| seconds * 1e3;
        match self {
            Self::Used { plain, fused } => write!(
                f,
                "used: {:.1} ms a picture in place of {:.1} ms",
                ms(fused),
                ms(plain)
            ),
            Self::NoQuicker { plain, fused } => write!(
                f,
                "not used, being no quicker: {:.1} ms a picture in place of {:.1} ms",
                ms(fused),
                ms(plain)
            ),
            Self::Differs { cosine } => write!(
                f,
                "not used, being wrong: a cosine of {cosine} to what comes without"
            ),
            Self::Refused { reason } => write!(f, "not used: {reason}"),
        }
    }
}

/// Features f32 [B, D] of pictures u8 [B, S, S, 3].
pub type Encode<'a> = &'a dyn Fn(&Tensor) -> Result<Tensor, EncodeError>;
/// Runs one of the two modules on a picture and gives the seconds that it took.
pub type Seconds<'a> = &'a dyn Fn(Encode<'_>, &Tensor) -> Result<f64, EncodeError>;

/// By the wall clock.
///
/// # Errors
/// The encoder's.
pub fn by_the_clock(encode: Encode<'_>, pixels: &Tensor) -> Result<f64, EncodeError> {
    let started = Instant::now();
    let _features = encode(pixels)?;
    Ok(started.elapsed().as_secs_f64())
}

/// Whether `fused` gives what `plain` gives, to a cosine of `least`, and which
/// is quicker. `draw` makes random pictures u8 [B, S, S, 3]. Each run holds
/// what `turn` gives; waiting for that is no part of a run's time.
pub fn judge<G>(
    plain: Encode<'_>,
    fused: Encode<'_>,
    draw: &dyn Fn(usize) -> Result<Tensor, EncodeError>,
    least: f64,
    seconds: Seconds<'_>,
    turn: &dyn Fn() -> G,
) -> Fusing {
    let timed = |encode: Encode<'_>, pixels: &Tensor| {
        let _turn = turn();
        seconds(encode, pixels)
    };
    let untimed = |encode: Encode<'_>, pixels: &Tensor| {
        let _turn = turn();
        encode(pixels)
    };
    let tried = || -> Result<Fusing, EncodeError> {
        for size in SIZES {
            let pixels = draw(size)?;
            let (ours, theirs) = (untimed(plain, &pixels)?, untimed(fused, &pixels)?);
            let cosine = least_cosine(&ours, &theirs).map_err(|error| EncodeError::Torch {
                encoder: "image",
                reason: error.to_string(),
            })?;
            // Not a number is not enough.
            if cosine.is_nan() || cosine < least {
                return Ok(Fusing::Differs { cosine });
            }
        }
        let pixels = draw(1)?;
        let (mut without, mut with) = (Vec::new(), Vec::new());
        let mut spent = 0.0;
        for round in 0..ROUNDS {
            if round >= LEAST_ROUNDS && spent >= ENOUGH_SECONDS {
                break;
            }
            let (plain, fused) = (timed(plain, &pixels)?, timed(fused, &pixels)?);
            without.push(plain);
            with.push(fused);
            spent += plain + fused;
        }
        let (plain, fused) = (median(without), median(with));
        Ok(if fused < WORTHWHILE * plain {
            Fusing::Used { plain, fused }
        } else {
            Fusing::NoQuicker { plain, fused }
        })
    };
    tried().unwrap_or_else(|error| Fusing::Refused {
        reason: error.to_string().lines().next().unwrap_or_default().into(),
    })
}

/// Random pictures u8 [B, height, width, 3].
pub(crate) fn noise(shape: [i64; 4]) -> Result<Tensor, EncodeError> {
    Tensor::f_randint(256, shape, (Kind::Uint8, tch::Device::Cpu)).map_err(|error| {
        EncodeError::Torch {
            encoder: "image",
            reason: error.to_string(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(size: usize) -> Result<Tensor, EncodeError> {
        noise([size as i64, 4, 4, 3])
    }

    fn features(pixels: &Tensor) -> Result<Tensor, EncodeError> {
        Ok(pixels.to_kind(Kind::Float).flatten(1, -1))
    }

    fn failing(_: &Tensor) -> Result<Tensor, EncodeError> {
        Err(EncodeError::Torch {
            encoder: "image",
            reason: "no such operator\nand more".into(),
        })
    }

    /// The first of the two ways takes `plain` seconds, the second `fused`.
    fn timed(fused: Encode<'_>, least: f64, times: [f64; 2]) -> Fusing {
        let turn = std::cell::Cell::new(0);
        let seconds = |_: Encode<'_>, _: &Tensor| {
            turn.set(turn.get() + 1);
            Ok(times[(turn.get() + 1) % 2])
        };
        judge(&features, fused, &draw, least, &seconds, &|| ())
    }

    #[test]
    fn the_quicker_of_two_that_agree_is_used() {
        let (plain, fused) = (0.02, 0.01);
        assert_eq!(
            timed(&features, 0.99999, [plain, fused]),
            Fusing::Used { plain, fused }
        );
        assert_eq!(
            timed(&features, 0.99999, [fused, plain]),
            Fusing::NoQuicker {
                plain: fused,
                fused: plain
            }
        );
        // Within what a clock tells apart.
        let verdict = timed(&features, 0.99999, [0.01, 0.0099]);
        assert!(matches!(verdict, Fusing::NoQuicker { .. }), "{verdict}");
    }

    #[test]
    fn a_picture_that_takes_seconds_is_timed_twice_and_a_quick_one_five_times() {
        for (took, rounds) in [(0.01, 5), (0.29, 5), (1.0, 2), (9.0, 2)] {
            let calls = std::cell::Cell::new(0);
            let seconds = |_: Encode<'_>, _: &Tensor| {
                calls.set(calls.get() + 1);
                Ok(took)
            };
            judge(&features, &features, &draw, 0.99999, &seconds, &|| ());
            assert_eq!(calls.get(), 2 * rounds, "{took} s");
        }
    }

    /// Where others compute too, they get in between any two runs, and are not
    /// waited for within one that is timed.
    #[test]
    fn every_run_has_a_turn_of_its_own_that_is_taken_before_it_is_timed() {
        use std::cell::Cell;

        struct Turn<'a>(&'a Cell<bool>);
        impl Drop for Turn<'_> {
            fn drop(&mut self) {
                self.0.set(false);
            }
        }

        let (held, turns, runs) = (Cell::new(false), Cell::new(0), Cell::new(0));
        let turn = || {
            assert!(!held.replace(true), "a turn within a turn");
            turns.set(turns.get() + 1);
            Turn(&held)
        };
        let run = |pixels: &Tensor| {
            assert!(held.get(), "a run without a turn");
            runs.set(runs.get() + 1);
            features(pixels)
        };
        let seconds = |encode: Encode<'_>, pixels: &Tensor| {
            assert!(held.get(), "the wait for the turn would be timed");
            encode(pixels).map(|_| 0.01)
        };
        judge(&run, &run, &draw, 0.99999, &seconds, &turn);
        // Two for each size, and two for each round.
        assert_eq!((turns.get(), runs.get()), (14, 14));
        assert!(!held.get());
    }

    #[test]
    fn other_features_are_not_used_however_quick() {
        let other = |pixels: &Tensor| Ok(features(pixels)?.fliplr());
        let verdict = timed(&other, 0.99999, [1.0, 0.01]);
        assert!(matches!(verdict, Fusing::Differs { .. }), "{verdict}");
        // A batch whose second picture alone is wrong.
        let second = |pixels: &Tensor| {
            let found = features(pixels)?;
            Ok(if found.size()[0] == 1 {
                found
            } else {
                found.flipud()
            })
        };
        let verdict = timed(&second, 0.99999, [1.0, 0.01]);
        assert!(matches!(verdict, Fusing::Differs { .. }), "{verdict}");
        let nan = |pixels: &Tensor| Ok(features(pixels)? * f64::NAN);
        let verdict = timed(&nan, 0.0, [1.0, 0.01]);
        assert!(matches!(verdict, Fusing::Differs { .. }), "{verdict}");
    }

    #[test]
    fn what_does_not_run_is_refused_with_its_reason() {
        let verdict = timed(&failing, 0.99999, [1.0, 0.01]);
        let Fusing::Refused { reason } = verdict else {
            panic!("{verdict}");
        };
        assert!(reason.contains("no such operator") && !reason.contains('\n'));
    }
}
