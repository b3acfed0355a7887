//! The command line from outside: arguments in; files, JSON and exit codes out.

mod auto;
mod bench;
mod broken;
mod calibrate;
mod demo;
mod evaluate;
mod finetune;
mod fixture;
mod inspect;
mod quantize;
mod repair;
mod report;
mod sensitivity;
mod targets;
mod usage;
