//! Filters of the lists of parameters.

use moorline_ssm::{
    ErrorCode,
    parameter::{ParameterStringFilter, ParameterTier, ParameterType, ParametersFilter},
};

use crate::{
    api::{ApiError, ApiResult, RequestContext, filters::matches_tags},
    engine::parameter::{check_path, is_below},
    log_lines::shown,
    store::{ParameterRow, TaggedResource},
};

/// Which list the filters are for: each has keys of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    DescribeParameters,
    GetParametersByPath,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Equals,
    BeginsWith,
    Contains,
    OneLevel,
    Recursive,
}

#[derive(Debug)]
struct Filter {
    key: String,
    how: How,
    values: Vec<String>,
}

/// The filters of a request, all of which a parameter has to match. Their `Debug` form binds a `NextToken` to them.
#[derive(Debug)]
pub(super) struct Filters(Vec<Filter>);

impl Filters {
    /// Reads filters of the newer form.
    pub(super) fn read(list: List, given: &[ParameterStringFilter]) -> ApiResult<Self> {
        let mut filters: Vec<Filter> = Vec::with_capacity(given.len());
        for one in given {
            let filter = read(list, one)?;
            if filters.iter().any(|other| other.key == filter.key) {
                return Err(invalid(
                    ErrorCode::InvalidFilterKey,
                    format!("the filter {} is given twice", shown(&filter.key)),
                ));
            }
            filters.push(filter);
        }
        Ok(Self(filters))
    }

    /// Reads filters of the older form, which are all `Equals`, but for names: those only have to begin so.
    pub(super) fn read_older(given: &[ParametersFilter]) -> ApiResult<Self> {
        let newer: Vec<ParameterStringFilter> = given
            .iter()
            .map(|one| {
                let key = one.key.as_ref().map(|key| key.as_str().to_owned());
                ParameterStringFilter {
                    option: key
                        .as_deref()
                        .filter(|key| *key == "Name")
                        .map(|_| "BeginsWith".to_owned()),
                    key,
                    values: one.values.clone(),
                }
            })
            .collect();
        Self::read(List::DescribeParameters, &newer)
    }

    /// The labels that are asked for.
    pub(super) fn labels(&self) -> Option<&[String]> {
        self.0
            .iter()
            .find(|filter| filter.key == "Label")
            .map(|filter| filter.values.as_slice())
    }

    /// Whether a parameter matches all of them. Labels are for the caller to look up: they choose a version.
    pub(super) async fn match_row(&self, cx: &RequestContext, row: &ParameterRow) -> ApiResult<bool> {
        let is_about_tags = self.0.iter().any(|filter| filter.key.starts_with("tag:"));
        let tags = match is_about_tags {
            true => cx.app.store.tags(TaggedResource::Parameter(&row.name)).await?,
            false => None,
        };
        let tags = tags.unwrap_or_default();
        Ok(self.0.iter().all(|filter| {
            if let Some(matches) = matches_tags(&filter.key, &filter.values, &tags) {
                return matches;
            }
            let actual = match filter.key.as_str() {
                "Label" => return true,
                "Path" => return filter.has_path(&row.name),
                "Name" => row.name.as_str(),
                "Type" => row.parameter_type.as_str(),
                "KeyId" => row.key_id.as_deref().unwrap_or_default(),
                "Tier" => row.tier.as_str(),
                _ => row.data_type.as_str(),
            };
            filter.values.iter().any(|wanted| filter.has(wanted, actual))
        }))
    }
}

impl Filter {
    fn has(&self, wanted: &str, actual: &str) -> bool {
        match self.how {
            How::BeginsWith => actual.starts_with(wanted),
            How::Contains => actual.contains(wanted),
            How::Equals | How::OneLevel | How::Recursive => actual == wanted,
        }
    }

    fn has_path(&self, name: &str) -> bool {
        let is_recursive = self.how == How::Recursive;
        let paths = self.values.iter().filter_map(|path| check_path(path).ok());
        paths.into_iter().any(|path| is_below(name, &path, is_recursive))
    }
}

fn read(list: List, given: &ParameterStringFilter) -> ApiResult<Filter> {
    let key = given.key.clone().unwrap_or_default();
    let values = given.values.clone().unwrap_or_default();
    let is_known = match list {
        List::GetParametersByPath => matches!(key.as_str(), "Type" | "KeyId" | "Label"),
        List::DescribeParameters => {
            matches!(
                key.as_str(),
                "Name" | "Type" | "KeyId" | "Path" | "Tier" | "DataType"
            ) || key.starts_with("tag:")
        }
    };
    if !is_known {
        let message = format!("the filter key {} is not valid for this list", shown(&key));
        return Err(invalid(ErrorCode::InvalidFilterKey, message));
    }
    let how = option(&key, given.option.as_deref()).ok_or_else(|| {
        let option = given.option.as_deref().unwrap_or_default();
        let message = format!("The following filter option is not valid: {}.", shown(option));
        invalid(ErrorCode::InvalidFilterOption, message + " Its key takes others.")
    })?;
    if values.is_empty() {
        let message = format!(
            "The following filter values are missing : null for filter key {}",
            shown(&key)
        );
        return Err(invalid(ErrorCode::InvalidFilterValue, message));
    }
    let wrong = values.iter().find(|value| match key.as_str() {
        "Type" if how == How::Equals => !ParameterType::VALUES.contains(&value.as_str()),
        "Tier" if how == How::Equals => !ParameterTier::VALUES.contains(&value.as_str()),
        "Path" => check_path(value).is_err(),
        _ => false,
    });
    if let Some(value) = wrong {
        let message = format!("{} is no value of the filter {key}", shown(value));
        return Err(invalid(ErrorCode::InvalidFilterValue, message));
    }
    Ok(Filter { key, how, values })
}

/// How values are compared. `None`: the key does not know this option.
fn option(key: &str, given: Option<&str>) -> Option<How> {
    match (key, given) {
        ("Path", None | Some("OneLevel")) => Some(How::OneLevel),
        ("Path", Some("Recursive")) => Some(How::Recursive),
        ("Path", Some(_)) => None,
        (_, None | Some("Equals")) => Some(How::Equals),
        (key, Some("BeginsWith")) if !key.starts_with("tag:") => Some(How::BeginsWith),
        ("Name", Some("Contains")) => Some(How::Contains),
        _ => None,
    }
}

fn invalid(code: ErrorCode, message: String) -> ApiError {
    ApiError::new(code, message)
}
