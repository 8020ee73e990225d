//! Cross-origin requests (the Fetch standard's CORS protocol): preflights answered, answers marked.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderName, HeaderValue, Method};

use crate::config::settings::{CorsOrigins, CorsSettings};
use crate::headers::{Headers, Value};

/// A route's `cors`, ready to be written.
pub struct Cors {
    origins: CorsOrigins,
    methods: HeaderValue,
    headers: Option<HeaderValue>,
    credentials: bool,
    max_age: Option<HeaderValue>,
}

/// The method that a preflight asks for: such a request is matched as if it were of that method.
pub fn preflight_method(method: &Method, headers: &Headers) -> Option<Method> {
    if method != Method::OPTIONS || !headers.contains_key(ORIGIN) {
        return None;
    }
    headers.get(ACCESS_CONTROL_REQUEST_METHOD).and_then(|value| Method::from_bytes(value.as_bytes()).ok())
}

impl Cors {
    pub fn build(settings: &CorsSettings, route_methods: Option<&[Method]>) -> Cors {
        let any = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
        let methods = settings.methods.as_deref().or(route_methods).unwrap_or(&any);
        Cors {
            origins: settings.origins.clone(),
            methods: joined(methods.iter().map(Method::as_str)).unwrap_or(HeaderValue::from_static("GET")),
            headers: joined(settings.headers.iter().map(HeaderName::as_str)),
            credentials: settings.credentials,
            max_age: settings.max_age.map(|age| HeaderValue::from(age.as_secs())),
        }
    }

    /// Marks an answer for the request's origin, if it is one of ours; what the app set is replaced, since a browser
    /// refuses two opinions.
    pub fn mark(&self, request: &Headers, answer: &mut Headers) {
        for name in [ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_ALLOW_CREDENTIALS] {
            answer.remove(name);
        }
        if self.origins != CorsOrigins::Any {
            answer.append(VARY, HeaderValue::from_static("Origin"));
        }
        let Some(allowed) = request.get(ORIGIN).and_then(|origin| self.allowed(origin)) else { return };
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if self.credentials {
            answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }

    /// What a preflight is told beside; nothing to an origin that is not ours.
    pub fn answer_preflight(&self, request: &Headers, answer: &mut Headers) {
        self.mark(request, answer);
        if !answer.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
            return;
        }
        answer.insert(ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
        if let Some(headers) = &self.headers {
            answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, headers.clone());
        }
        if let Some(max_age) = &self.max_age {
            answer.insert(ACCESS_CONTROL_MAX_AGE, max_age.clone());
        }
    }

    /// Whether this origin is named; `*` names none.
    pub fn names(&self, origin: Value<'_>) -> bool {
        match &self.origins {
            CorsOrigins::Any => false,
            CorsOrigins::List(_) => self.allowed(origin).is_some(),
        }
    }

    fn allowed(&self, origin: Value<'_>) -> Option<HeaderValue> {
        match &self.origins {
            CorsOrigins::Any => Some(HeaderValue::from_static("*")),
            CorsOrigins::List(list) => {
                let is_ours = |ours: &String| origin.as_bytes().eq_ignore_ascii_case(ours.as_bytes());
                list.iter().any(is_ours).then(|| origin.owned())
            }
        }
    }
}

fn joined<'a>(words: impl Iterator<Item = &'a str>) -> Option<HeaderValue> {
    let text = words.collect::<Vec<_>>().join(", ");
    if text.is_empty() { None } else { HeaderValue::try_from(text).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(&'static str, &'static str)]) -> Headers {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn cors(credentials: bool) -> Cors {
        let settings = CorsSettings {
            origins: CorsOrigins::List(vec!["https://shop.example".into()]),
            methods: None,
            headers: vec![http::header::CONTENT_TYPE],
            credentials,
            max_age: Some(std::time::Duration::from_secs(600)),
        };
        Cors::build(&settings, Some(&[Method::POST]))
    }

    #[test]
    fn our_origin_is_answered() {
        let mut answer = Headers::new();
        let request = request(&[("origin", "https://shop.example"), ("access-control-request-method", "POST")]);
        assert_eq!(preflight_method(&Method::OPTIONS, &request), Some(Method::POST));
        cors(true).answer_preflight(&request, &mut answer);
        assert_eq!(answer.get("access-control-allow-origin").unwrap(), "https://shop.example");
        assert_eq!(answer.get("access-control-allow-credentials").unwrap(), "true");
        assert_eq!(answer.get("access-control-allow-methods").unwrap(), "POST");
        assert_eq!(answer.get("access-control-allow-headers").unwrap(), "content-type");
        assert_eq!(answer.get("access-control-max-age").unwrap(), "600");
        assert_eq!(answer.get("vary").unwrap(), "Origin");
    }

    #[test]
    fn another_origin_is_told_nothing_even_by_the_app() {
        let mut answer = request(&[("access-control-allow-origin", "*")]);
        cors(false).answer_preflight(&request(&[("origin", "https://evil.example")]), &mut answer);
        assert_eq!(answer.len(), 1);
        assert_eq!(answer.get("vary").unwrap(), "Origin");
    }
}
