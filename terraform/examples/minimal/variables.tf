variable "region" {
  description = "Where it runs."
  type        = string
  default     = "eu-central-1"
}

variable "name" {
  description = "What every name begins with."
  type        = string
  default     = "faasd"
}

variable "callers" {
  description = "Networks that may reach the API."
  type        = list(string)
}

variable "image_id" {
  description = "Image of the nodes; null: the newest that packer built in this account."
  type        = string
  default     = null
}

variable "certificate_parameter" {
  description = "Parameter with the PEM certificate; null: HTTP, for the named networks alone."
  type        = string
  default     = null
}

variable "key_parameter" {
  description = "Parameter with its private key."
  type        = string
  default     = null
}

variable "emails" {
  description = "Who is told of alarms."
  type        = list(string)
  default     = []
}

variable "protect_data" {
  description = "Whether tables and bucket refuse to be destroyed."
  type        = bool
  default     = true
}
