//! The flags that say how a classifier's head is made, shared by the commands
//! that make one.

use std::{iter, sync::LazyLock};

use clap::{Args, ValueEnum, builder::PossibleValue};

use tip_spec::{MadeBy, Method};
use tipserve_api::v1::{self, SearchGrid, search_grid};

/// The numbers of a head, and the grid on which they are searched.
#[derive(Clone, Debug, Default, Args)]
pub struct NumbersArgs {
    /// Weight of the cache, over 0 [default: chosen].
    #[arg(long, value_parser = positive)]
    pub alpha: Option<f64>,
    /// Sharpness, over 0 [default: chosen].
    #[arg(long, value_parser = positive)]
    pub beta: Option<f64>,
    /// Regularisation of ProKeR, over 0 [default: chosen].
    #[arg(long, value_parser = positive)]
    pub lambda: Option<f64>,
    /// Grid of α and β to search: the authors' own, or a wider one.
    #[arg(long, value_enum)]
    pub grid: Option<GridArg>,
    /// Largest β of the official grid, s_β [default: 7].
    #[arg(long, value_name = "S", value_parser = positive)]
    pub beta_scale: Option<f64>,
    /// Largest α of the official grid, s_α [default: 3].
    #[arg(long, value_name = "S", value_parser = positive)]
    pub alpha_scale: Option<f64>,
}

impl NumbersArgs {
    /// The grid that the flags ask for.
    pub fn search_grid(&self) -> Option<SearchGrid> {
        grid(self.grid, self.beta_scale, self.alpha_scale)
    }
}

/// Values of `--method`: `auto`, and every method that is made by its name.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum MethodArg {
    /// The server combines methods.
    #[default]
    Auto,
    /// Exactly this method, without others beside it.
    Named(Method),
}

static METHODS: LazyLock<Vec<MethodArg>> = LazyLock::new(|| {
    let by_name = Method::ALL.iter().copied();
    let by_name = by_name.filter(|method| method.made_by() == MadeBy::Name);
    let named = by_name.map(MethodArg::Named);
    iter::once(MethodArg::Auto).chain(named).collect()
});

impl ValueEnum for MethodArg {
    fn value_variants<'a>() -> &'a [Self] {
        &METHODS
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let name = match self {
            MethodArg::Auto => "auto".to_owned(),
            MethodArg::Named(method) => {
                let name = method.api_name().trim_start_matches("METHOD_");
                name.to_lowercase().replace('_', "-")
            }
        };
        Some(PossibleValue::new(name))
    }
}

impl MethodArg {
    /// Its number in the API.
    pub fn number(self) -> i32 {
        match self {
            MethodArg::Auto => v1::Method::Auto.into(),
            MethodArg::Named(method) => method.number(),
        }
    }
}

/// Values of `--grid`, as the API names them.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
#[allow(missing_docs)]
pub enum GridArg {
    Official,
    Wide,
}

/// Values of `--balance`, as the API names them.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
#[allow(missing_docs)]
pub enum BalanceArg {
    Sum,
    Mean,
}

impl From<BalanceArg> for v1::ClassBalance {
    fn from(balance: BalanceArg) -> Self {
        match balance {
            BalanceArg::Sum => Self::Sum,
            BalanceArg::Mean => Self::Mean,
        }
    }
}

/// Values of `--key-dtype`, as the API names them.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
#[allow(missing_docs)]
pub enum KeyDtypeArg {
    F32,
    Bf16,
    F16,
}

impl From<KeyDtypeArg> for v1::KeyDtype {
    fn from(dtype: KeyDtypeArg) -> Self {
        match dtype {
            KeyDtypeArg::F32 => Self::F32,
            KeyDtypeArg::Bf16 => Self::Bf16,
            KeyDtypeArg::F16 => Self::F16,
        }
    }
}

/// Values of `--exif-orientation`, as the API names them.
#[derive(Clone, Copy, Debug, Default, PartialEq, ValueEnum)]
pub enum ExifOrientationArg {
    /// Pictures are turned upright, as viewers show them.
    #[default]
    Apply,
    /// Pixels stay as they are stored, as in CLIP's own preprocessing.
    Ignore,
}

impl From<ExifOrientationArg> for v1::ExifOrientation {
    fn from(orientation: ExifOrientationArg) -> Self {
        match orientation {
            ExifOrientationArg::Apply => Self::Apply,
            ExifOrientationArg::Ignore => Self::Ignore,
        }
    }
}

/// A finite number over 0.
pub fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value > 0.0 => Ok(value),
        _ => Err("must be a number over 0".to_owned()),
    }
}

/// Checks a prompt template when the command line is parsed.
pub fn template(text: &str) -> Result<String, String> {
    if text.contains("{}") {
        Ok(text.to_owned())
    } else {
        Err("must contain {}, which stands for the class".to_owned())
    }
}

/// The grid that the flags ask for; a scale alone asks for the official one.
pub fn grid(
    grid: Option<GridArg>,
    beta_scale: Option<f64>,
    alpha_scale: Option<f64>,
) -> Option<SearchGrid> {
    let scaled = beta_scale.is_some() || alpha_scale.is_some();
    let kind = match grid {
        Some(GridArg::Wide) => search_grid::Kind::Wide,
        Some(GridArg::Official) => search_grid::Kind::Official,
        None if scaled => search_grid::Kind::Official,
        None => return None,
    };
    Some(SearchGrid {
        kind: kind.into(),
        beta_scale: beta_scale.unwrap_or(0.0),
        alpha_scale: alpha_scale.unwrap_or(0.0),
    })
}
