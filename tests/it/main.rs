mod openapi;
mod sandbox_api;
mod sandbox_callbacks;
mod sandbox_lab;
mod sandbox_openapi;
