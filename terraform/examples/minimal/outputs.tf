output "faasd" {
  description = "What a caller needs next."
  value       = module.faasd
}
