//! `/ota/…`: what fioctl and lmp-device-register speak. Their paths end in a slash; without it they
//! work too.

mod certs;
mod config;
mod devices;
mod registration;
mod scripts;
mod sota;
mod updates;
mod users;

use std::sync::Arc;

use axum::Router;
use axum::routing::{MethodRouter, delete, get, patch};
use serde::de::DeserializeOwned;

use super::Api;
use super::error::ApiError;

pub(super) fn router() -> Router<Arc<Api>> {
    let certs = || get(certs::show).post(certs::request).patch(certs::upload);
    let devices = || get(devices::list).post(registration::register).put(registration::introduce);
    let device = || get(devices::show).delete(devices::deny);
    let router = with_and_without_slash(Router::new(), "/factories/{factory}/certs", certs);
    let router =
        with_and_without_slash(router, "/factories/{factory}/users/self", || get(users::own));
    let router = with_and_without_slash(router, "/factories/{factory}/config", || {
        get(config::show_of_factory).patch(config::set_of_factory)
    });
    let router = with_and_without_slash(router, "/factories/{factory}/config/{file}", || {
        delete(config::remove_of_factory)
    });
    let group = "/factories/{factory}/device-groups/{group}/config";
    let router = with_and_without_slash(router, group, || {
        get(config::show_of_group).patch(config::set_of_group)
    });
    let router = with_and_without_slash(router, &format!("{group}/{{file}}"), || {
        delete(config::remove_of_group)
    });
    let no_group = "/factories/{factory}/device-groups//config";
    let router = with_and_without_slash(router, no_group, || patch(config::set_of_no_group));
    let router = with_and_without_slash(router, "/devices", devices);
    let router = with_and_without_slash(router, "/devices/{name}", device);
    let router = with_and_without_slash(router, "/devices/{name}/config", || {
        get(config::show_of_device).patch(config::set_of_device)
    });
    let router = with_and_without_slash(router, "/devices/{name}/config/{file}", || {
        delete(config::remove_of_device)
    });
    let router = with_and_without_slash(router, "/devices/{name}/updates", || get(updates::list));
    with_and_without_slash(router, "/devices/{name}/updates/{id}", || get(updates::show))
}

fn with_and_without_slash(
    router: Router<Arc<Api>>,
    path: &str,
    methods: impl Fn() -> MethodRouter<Arc<Api>>,
) -> Router<Arc<Api>> {
    router.route(path, methods()).route(&format!("{path}/"), methods())
}

/// Reads a body, whatever its Content-Type says: not every client says it.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|why| ApiError::bad_request(format!("the body: {why}")))
}
