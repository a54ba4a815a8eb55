# Write-only arguments keep secrets out of the state: Terraform 1.11, AWS provider 5.88.
terraform {
  required_version = ">= 1.11.0"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.88.0, < 6.0.0"
    }
  }
}
