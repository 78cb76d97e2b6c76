//! The registry of methods: a line here, one of the same name and number in the
//! API's enum, and the method's own file in `tip-adapter`.

use serde::{Deserialize, Serialize};

/// How a version of a method comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MadeBy {
    /// A request names it: a closed form over examples and text.
    Name,
    /// AUTO combines it from others.
    Auto,
    /// FineTune trains its keys.
    FineTuning,
}

/// What a head of a method stores beside its linear part L and bias b.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadForm {
    /// Nothing: L and b are the whole head.
    Linear,
    /// A weight for each one-hot value; its keys are the examples'.
    OneHot,
    /// The same, with keys of its own.
    TrainedOneHot,
    /// Dense values V, f32 [M, N]; its keys are the examples'.
    Dense,
    /// Dense values if a kernel is part of the sum, on standardised keys if
    /// that scored better.
    Combined,
}

macro_rules! methods {
    ($($(#[$doc:meta])+ $method:ident = $number:literal, $api_name:literal, $made_by:ident, $form:ident;)+) => {
        /// A way to make the head `f·Lᵀ + b + exp(−β(1 − f·Kᵀ))·V`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Method {
            $($(#[$doc])+ $method = $number,)+
        }

        impl Method {
            /// All of them.
            pub const ALL: &[Method] = &[$(Method::$method,)+];

            /// Its name in the API, such as `METHOD_ZERO_SHOT`.
            pub const fn api_name(self) -> &'static str {
                match self {
                    $(Method::$method => $api_name,)+
                }
            }

            /// How a version of it comes about.
            pub const fn made_by(self) -> MadeBy {
                match self {
                    $(Method::$method => MadeBy::$made_by,)+
                }
            }

            /// Which of K and V its heads store beside L and b.
            pub const fn form(self) -> HeadForm {
                match self {
                    $(Method::$method => HeadForm::$form,)+
                }
            }
        }
    };
}

methods! {
    /// CLIP's text classifier alone: L = s·W.
    ZeroShot = 2, "METHOD_ZERO_SHOT", Name, Linear;
    /// Tip-Adapter (Zhang et al., ECCV 2022): L = s·W, V = α·one-hot.
    TipAdapter = 3, "METHOD_TIP_ADAPTER", Name, OneHot;
    /// Gaussian discriminant analysis (Wang et al., ICLR 2024):
    /// L = s·W + α·w, b = α·b_c, no keys.
    Gda = 4, "METHOD_GDA", Name, Linear;
    /// ProKeR (CVPR 2025): L = s·W, V = s·α·(K_SS/λ + I)⁻¹(Y − S·Wᵀ), dense;
    /// α = 1 in the paper, 1/λ makes it ordinary kernel ridge regression.
    Proker = 5, "METHOD_PROKER", Name, Dense;
    /// Nearest class mean: L = s·W + α·s·mean of the class's keys (unit norm).
    ClassMean = 6, "METHOD_CLASS_MEAN", Name, Linear;
    /// Tip-Adapter-F: Tip-Adapter with trained keys.
    TipAdapterF = 7, "METHOD_TIP_ADAPTER_F", FineTuning, TrainedOneHot;
    /// What AUTO makes: the weighted sum of text, GDA and kernel ridge
    /// regression without text, each at its own temperature.
    Stack = 8, "METHOD_STACK", Auto, Combined;
}

impl Method {
    /// Its number in the API.
    pub const fn number(self) -> i32 {
        self as i32
    }

    /// The method of a number in the API.
    pub fn by_number(number: i32) -> Option<Method> {
        Self::ALL.iter().copied().find(|it| it.number() == number)
    }
}
