# What packer/build.sh fills in.

variable "region" {
  type        = string
  description = "Where the image is built."
  default     = "eu-central-1"
}

variable "executable_x86_64" {
  type        = string
  description = "Path of the release executable for x86_64."
}

variable "executable_arm64" {
  type        = string
  description = "The same for arm64."
}

variable "version" {
  type        = string
  description = "Version of faasd, as `faasd --version` says it."
}

variable "digest_x86_64" {
  type        = string
  description = "SHA-256 of the executable for x86_64."
}

variable "digest_arm64" {
  type        = string
  description = "The same for arm64."
}

variable "compilers" {
  type        = string
  description = "yes: Go and C++ on the image, for functions in source; no: such functions are deployed as built."
  default     = "no"
}

variable "cloudwatch_agent" {
  type        = string
  description = "yes: the CloudWatch agent is installed, not configured."
  default     = "no"
}
