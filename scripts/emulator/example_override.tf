# Laid over an example by scripts/deploy-test.sh. Endpoint and credentials come from the environment.
provider "aws" {
  region                      = var.region
  s3_use_path_style           = true
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_region_validation      = true
}
