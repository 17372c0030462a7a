//! The Airflow package of `airflow/`: its format, types and own tests, and its example DAG in a
//! real Airflow on the real services, with the commands of docs/airflow.md.
//! `TIDEMILL_TEST_AIRFLOW` names the python of an environment that `airflow/venv` made.

mod documented;
mod installed;
mod package;
mod servers;
mod users;
